"""What a child process is started with, and when it is taken for hung."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge_runtime.daemon.child import environment
from edge_runtime.daemon.watchdog import Watchdog
from edge_runtime.engine.messages import Down


class Mute:
    """A child that has work and never says a word."""

    busy = True

    def __init__(self, die: Callable[[], None]) -> None:
        self.kill = die
        self.sent: list[Down] = []
        self.send: Callable[[Down], None] = self.sent.append


def test_how_threads_wait_is_decided_here_and_not_by_whoever_started_the_daemon() -> None:
    inherited = {"PATH": "/bin", "OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "9", "GOMP_SPINCOUNT": "INFINITY"}
    found = environment(inherited)
    assert found["PATH"] == "/bin"
    assert not [name for name in found if name.startswith(("OMP_", "KMP_"))]
    assert 1000 <= int(found["GOMP_SPINCOUNT"]) <= 20_000
    assert found["GGML_NO_BACKTRACE"] == "1"


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_without_seconds_of_silence_nobody_is_watched(seconds: float | None) -> None:
    killed: list[str] = []
    child = Mute(lambda: killed.append("it"))
    asyncio.run(Watchdog(seconds).watch(child))
    assert (killed, child.sent) == ([], [])


def test_one_that_stays_silent_is_asked_and_then_killed() -> None:
    async def run() -> None:
        killed = asyncio.Event()
        child = Mute(killed.set)
        watch = asyncio.ensure_future(Watchdog(0.02).watch(child))
        await killed.wait()
        watch.cancel()
        assert child.sent

    asyncio.run(run())

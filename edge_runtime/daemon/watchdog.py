"""Notices a child that hangs: it has requests, and says nothing for too long, not even to a ping."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from edge_runtime.daemon import logs
from edge_runtime.engine.messages import Down, Ping
from edge_runtime.errors import EngineError

_LOOKS = 4  # within the time that a child may be silent


class Watched(Protocol):
    """A child process, as far as it is watched."""

    @property
    def busy(self) -> bool: ...
    @property
    def send(self) -> Callable[[Down], None]: ...
    @property
    def kill(self) -> Callable[[], None]: ...


class Watchdog:
    """``seconds`` None or 0: nobody is watched. Looks are counted, not time: a daemon that slept blames no child."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._heard = True

    def hear(self) -> None:
        """The child has said something."""
        self._heard = True

    async def watch(self, child: Watched) -> None:
        """Kill ``child`` when it hangs; until cancelled."""
        if not self._seconds:
            return
        missed = 0
        while True:
            await asyncio.sleep(self._seconds / _LOOKS)
            missed = 0 if self._heard or not child.busy else missed + 1
            self._heard = False
            if missed >= _LOOKS:
                logs.warn("child.hangs", seconds=self._seconds)
                child.kill()
            elif child.busy:
                with contextlib.suppress(EngineError):
                    child.send(Ping(id=""))

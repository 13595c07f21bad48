"""``edge top``: its lines fit any terminal, and the terminal is as it was when it leaves."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import msgspec
import pytest

from edge_runtime.cli.output import cells
from edge_runtime.cli.top import View, lines
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import PATIENCE, Shell

CALM = msgspec.structs.replace(samples.ENGINE, at=99.0, written=4100)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 8), (40, 12), (200, 60)])
def test_its_lines_fit_the_terminal(columns: int, rows: int) -> None:
    shown = lines(View(samples.ENGINE, CALM), columns=columns, rows=rows)
    assert len(shown) <= rows
    assert all(cells(line) <= columns for line in shown)
    assert shown[0].startswith("edge top: 100.0 tokens/s")


def test_many_requests_are_cut_and_counted() -> None:
    many = msgspec.structs.replace(samples.ENGINE, requests=samples.ENGINE.requests * 30)
    shown = lines(View(many), columns=80, rows=23)
    assert len(shown) == 23
    hidden = int(shown[-1].removeprefix("and ").removesuffix(" more"))
    assert sum(line.startswith("req-") for line in shown) + hidden == 90


def test_a_daemon_that_is_gone_is_said_with_its_age() -> None:
    assert "daemon unreachable for 12 s" in lines(View(samples.ENGINE, away=12.4), columns=80, rows=24)[0]


def test_one_thread_is_not_several() -> None:
    one = msgspec.structs.replace(samples.ENGINE.engines[0], threads=1)
    shown = lines(View(msgspec.structs.replace(samples.ENGINE, engines=[one])), columns=200, rows=24)
    assert ", 1 thread," in shown[1]


def test_without_a_terminal_one_snapshot_is_printed(shell: Shell) -> None:
    with shell.daemon():
        done = shell.edge("top")
    assert (done.code, done.err) == (0, "")
    assert "1500 of 4096 cells" in done.out
    assert "\x1b" not in done.out


def test_without_a_daemon_it_says_so(shell: Shell) -> None:
    assert shell.edge("top").code == 3


class Terminal:
    """``edge top`` on a terminal of 80 columns and 24 rows."""

    def __init__(self, shell: Shell) -> None:
        self.screen = b""
        self._end, inside = pty.openpty()
        termios.tcsetwinsize(inside, (24, 80))
        self.before = termios.tcgetattr(inside)
        self._inside = inside
        world = {**shell.world, "TERM": "xterm", "NO_COLOR": "1"}
        command = [sys.executable, "-m", "edge_runtime.cli", "top"]
        self.process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=world)

    def wait(self, text: bytes) -> None:
        """Until ``text`` has been drawn from now on."""
        self.screen = b""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < end, self.screen
            if select.select([self._end], [], [], 0.1)[0]:
                self.screen += os.read(self._end, 65536)

    def leave(self, key: bytes | None) -> int:
        if key is None:
            self.process.send_signal(signal.SIGINT)
        else:
            os.write(self._end, key)
        self.wait(b"\x1b[?1049l")  # the other screen is put away
        code = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self._inside) == self.before
        os.close(self._end)
        os.close(self._inside)
        return code


@pytest.mark.parametrize("key", [b"q", b"\x1b[Aq", None], ids=["q", "an arrow and q", "ctrl-c"])
def test_it_draws_until_somebody_leaves_and_restores_the_terminal(shell: Shell, key: bytes | None) -> None:
    with shell.daemon():
        terminal = Terminal(shell)
        terminal.wait(b"q leaves")
        assert b"\x1b[3" not in terminal.screen.replace(b"\x1b[?", b"")  # no colours
    terminal.wait(b"daemon unreachable for")
    with shell.daemon():
        terminal.wait(b"tokens written")
        assert terminal.leave(key) == 0

"""``edge`` and the client before a real daemon: the whole way from a file to a cited answer, and the demo."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.client import connect_sync
from models.store import Store
from tests.box import Box, furnish, running
from tests.conftest import SMALL_WRITER
from tests.edge_runtime.cli.conftest import Shell

PATIENCE = 120.0  # seconds until something that should happen counts as never happening
MANUAL = """# Pump P7

## Alarms

Alarm E17 means low suction pressure. Alarm E18 means that the motor is too warm.

## Bolts

The gland bolts of pump P7 need a torque of 25 Nm.
"""


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


@pytest.fixture
def shell(box: Box) -> Shell:
    return Shell(box.home)


@pytest.fixture(scope="module")
def manual(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("manuals") / "p7.md"
    file.write_text(MANUAL, "utf-8")
    with connect_sync(box.socket) as client:
        client.add_document(file.name, file.read_bytes())
    return file


def test_status_says_ready_and_sealed(shell: Shell) -> None:
    done = shell.edge("status", "--json")
    assert (done.code, done.json["ready"], done.json["seal"]["sealed"]) == (0, True, True)


def test_a_fact_is_answered_with_the_quote_it_rests_on(shell: Shell, manual: Path) -> None:
    whole = shell.edge("ask", "What does alarm E17 mean?", "--mode", "extract", "--json")
    assert whole.json["grounded"]
    assert "low suction pressure" in whole.json["answer"]
    streamed = shell.edge("ask", "What does alarm E17 mean?", "--mode", "extract")
    assert "low suction pressure" in streamed.out.split("\n\n")[0]
    assert f"[1] {manual.name}, Alarms" in streamed.out


def test_a_passage_is_what_the_document_says_there(box: Box, manual: Path) -> None:
    with connect_sync(box.socket) as client:
        citation = client.ask("Which torque do the gland bolts need?", mode="extract").citations[0]
        passage = client.document_text(citation.document_id, citation.locator.start, citation.locator.end)
    assert passage.text == citation.quote
    assert "25 Nm" in passage.text


def test_search_finds_the_passage(shell: Shell, manual: Path) -> None:
    hits = shell.edge("search", "gland bolts torque", "-k", "2", "--json").json["hits"]
    assert "25 Nm" in hits[0]["text"]


def test_a_removed_document_answers_no_more(shell: Shell, tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_text("The winch of shed 4 lifts 750 kg.", "utf-8")
    assert shell.edge("add", note).code == 0
    assert "1 unchanged" in shell.edge("add", note).err
    assert shell.edge("search", "winch", "--json").json["hits"][0]["document"] == "note.md"
    done = shell.edge("rm", "--yes", "note.md")
    assert (done.code, "purged" in done.err) == (0, True)
    assert "note.md" not in shell.edge("docs").out


def test_doctor_finds_the_seal_well_by_asking_the_sealed_processes(shell: Shell) -> None:
    found = {check["id"]: check for check in shell.edge("doctor", "--json").json["checks"]}
    assert found["seal"]["state"] == "ok", found["seal"]
    assert "3 processes" in found["seal"]["detail"]
    assert [found[name]["state"] for name in ("daemon", "children", "index", "clock")] == ["ok"] * 4


def test_events_tell_of_a_document_as_it_is_added(shell: Shell, box: Box) -> None:
    command = [sys.executable, "-m", "edge_runtime.cli", "events"]
    with (
        connect_sync(box.socket) as client,
        subprocess.Popen(command, env=shell.world, stdout=subprocess.PIPE, text=True) as follow,
    ):
        assert follow.stdout is not None
        try:
            # Nothing says when it has begun to listen: documents are added until it has heard of one.
            for number in range(100):
                client.add_document("event.md", f"The tank was painted {number} times.".encode())
                if select.select([follow.stdout], [], [], 0.5)[0]:
                    break
            assert '"event.md"' in follow.stdout.readline()
        finally:
            follow.terminate()


# ---- at a terminal -------------------------------------------------------------------------------------------------


# Ctrl-c becomes a signal only where the terminal controls the session (tty_ioctl(4)).
_CONTROLLED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """``edge chat`` on a pseudo-terminal, with keys and a screen that only grows."""

    def __init__(self, shell: Shell, *arguments: str, term: str = "xterm-256color") -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (30, 100))
        world = {**shell.world, "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1"}
        command = [sys.executable, "-c", _CONTROLLED, sys.executable, "-m", "edge_runtime.cli", *arguments]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=world, start_new_session=True
        )
        os.close(slave)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, *, after: int = 0) -> int:
        """Until the screen holds ``text`` past position ``after``; the position behind it."""
        end = time.monotonic() + PATIENCE
        while (found := self.seen.find(text, after)) < 0:
            assert time.monotonic() < end, f"{text!r} never came:\n{self.seen}"
            if select.select([self._master], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self._master, 65536).decode("utf-8", "replace")
                except OSError:
                    pytest.fail(f"it ended before {text!r} came:\n{self.seen}")
        return found + len(text)

    def leave(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(PATIENCE)
        os.close(self._master)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_chat_at_a_terminal_answers_and_ctrl_d_leaves(shell: Shell, manual: Path, term: str) -> None:
    terminal = Terminal(shell, "chat", "--mode", "extract", term=term)
    try:
        at = terminal.wait_for("ctrl-d leaves")
        at = terminal.wait_for(">", after=at)
        terminal.type("What does alarm E17 mean?\r")
        at = terminal.wait_for("low suction pressure", after=at)
        at = terminal.wait_for(">", after=terminal.wait_for(manual.name, after=at))
        terminal.type("\x04")
        assert terminal.leave() == 0
    finally:
        terminal.kill()


def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(shell: Shell, box: Box, manual: Path) -> None:
    os.kill(box.child("engine")["pid"], signal.SIGSTOP)
    engine = box.child("engine")["pid"]
    terminal = Terminal(shell, "chat")
    try:
        at = terminal.wait_for(">", after=terminal.wait_for("ctrl-d leaves"))
        terminal.type("What does alarm E17 mean?\r")
        with connect_sync(box.socket) as client:
            box.wait(lambda: any(one.kind == "ask" for one in client.requests().requests))
            terminal.type("\x03")
            at = terminal.wait_for("cancelled", after=at)
            box.wait(lambda: not any(one.kind == "ask" for one in client.requests().requests))
        terminal.wait_for(">", after=at)
        terminal.type("/quit\r")
        assert terminal.leave() == 0
    finally:
        os.kill(engine, signal.SIGCONT)
        terminal.kill()


# ---- the demo ------------------------------------------------------------------------------------------------------


def test_the_demo_answers_proves_the_seal_and_stops_the_daemon_it_started(shared_store: Store, tmp_path: Path) -> None:
    shell = Shell(furnish(tmp_path / "home", shared_store.root))
    done = shell.edge("demo", "--writer", SMALL_WRITER)
    assert done.code == 0, done.err
    assert done.out.count("\n> ") == 3
    assert "low suction pressure" in done.out
    assert "3 processes tried" in done.out
    assert "OPEN" not in done.out
    assert shell.edge("status").code == 3
    assert (shell.home / "run" / "edged.log").stat().st_size > 0
    again = shell.edge("demo")
    assert (again.code, "8 unchanged" in again.err) == (0, True)


def test_a_demo_that_is_told_to_end_stops_its_daemon(shared_store: Store, tmp_path: Path) -> None:
    shell = Shell(furnish(tmp_path / "home", shared_store.root))
    command = [sys.executable, "-m", "edge_runtime.cli", "demo"]
    with subprocess.Popen(
        command, env=shell.world, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as demo:
        assert demo.stderr is not None
        next(line for line in demo.stderr if line.startswith("ready after"))
        demo.terminate()
        demo.stderr.read()
        assert demo.wait(PATIENCE) == 128 + signal.SIGTERM
    assert shell.edge("status").code == 3


def test_a_demo_without_models_fails_with_the_daemons_own_reason(tmp_path: Path) -> None:
    shell = Shell(furnish(tmp_path / "home", None))
    done = shell.edge("demo")
    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert shell.edge("status").code == 3

"""The whole of ``edged``, its children included, from start to answers: no network socket, by three witnesses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_runtime import escape
from models.store import Store
from tests.box import Box, furnish, running

MANUAL = b"# Pump P-201\n\nThe gland bolts of pump P-201 are tightened to 35 Nm. Check them each week.\n"
UNIX = {"AF_UNIX", "AF_LOCAL"}
_FAMILY = re.compile(r"\b[AP]F_[A-Z0-9]+\b")


def families(trace: str) -> set[str]:
    """Every address family that the traced system calls name."""
    return set(_FAMILY.findall(trace))


@dataclass
class Traced:
    box: Box
    trace: Path


@pytest.fixture(scope="module")
def traced(shared_store: Store) -> Iterator[Traced]:
    """``edged`` under strace, from its very start."""
    root = Path(tempfile.mkdtemp(prefix="box-"))
    box = Box(furnish(root / "home", shared_store.root))
    trace = root / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace)]
    with (box.home / "log").open("ab") as log:
        box.process = subprocess.Popen(
            [*strace, sys.executable, "-P", "-m", "edge_runtime.daemon"],
            env={**os.environ, "EDGE_HOME": str(box.home)},
            stdout=log,
            stderr=log,
        )
    try:
        box.wait(lambda: box._reached(ready=True), seconds=120)
        yield Traced(box, trace)
    finally:
        if box.process.poll() is None:
            os.kill(daemon(box), signal.SIGKILL)
            box.process.wait(30)
        shutil.rmtree(root, ignore_errors=True)


def daemon(box: Box) -> int:
    return int((box.home / "run" / "edged.lock").read_text())


def tree(pid: int) -> list[int]:
    """``pid`` and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in tree(int(child)))]


def answer_everything(box: Box) -> None:
    """Each kind of work once: a document parsed and embedded, a search, an answer, generation."""
    assert box.add("pump.md", MANUAL).status < 300
    asked = "What torque do the gland bolts of pump P-201 need?"
    search = box.post("/edge/v1/search", {"query": asked})
    assert "35 Nm" in search.body.decode()
    assert box.post("/edge/v1/ask", {"question": asked}).status == 200
    assert box.post("/v1/embeddings", {"model": "all-minilm-l6-v2-int8", "input": asked}).status == 200
    assert box.chat().status == 200


def test_strace_sees_a_network_socket_where_there_is_one(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'])"
    subprocess.run(["strace", "-f", "-qq", "-e", "trace=network", "-o", trace, sys.executable, "-c", code], check=True)
    assert families(trace.read_text()) == {"AF_INET"}


def test_no_call_names_another_family_than_unix_from_start_to_answers_and_stop(traced: Traced) -> None:
    answer_everything(traced.box)
    os.kill(daemon(traced.box), signal.SIGTERM)
    assert traced.box.process is not None
    assert traced.box.process.wait(60) == 0
    trace = traced.trace.read_text()
    # strace saw the listener made and the children's socket pairs, so it would have seen the others.
    assert "socket(AF_UNIX" in trace
    assert "socketpair(AF_UNIX" in trace
    assert families(trace) <= UNIX


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root, "", "--listen", "127.0.0.1:0") as started:
        answer_everything(started)
        yield started


def test_each_thread_of_each_process_is_under_the_filter(box: Box) -> None:
    processes = tree(daemon(box))
    assert len(processes) >= 3
    for pid in processes:
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = (task / "status").read_text()
            assert "\nSeccomp:\t2\n" in status
            assert "\nNoNewPrivs:\t1\n" in status


def test_no_process_holds_a_socket_that_is_not_unix_but_the_listener_that_was_asked_for(box: Box) -> None:
    known = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    strangers = []
    for pid in tree(daemon(box)):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue  # a file that was closed meanwhile
            if target.startswith("socket:[") and target.removeprefix("socket:[").rstrip("]") not in known:
                strangers.append((pid, entry.name))
    assert [pid for pid, _ in strangers] == [daemon(box)]


def test_each_process_tries_every_way_out_on_itself_and_is_refused(box: Box) -> None:
    proof = box.post("/edge/v1/probe", {}).json["attempts"]
    assert [each for each in proof if not each["refused"]] == []
    for process in ("edged", "engine", "embedder"):
        assert {each["route"] for each in proof if each["process"] == process} >= escape.ROUTES.keys()
    assert "TCP listener connected elsewhere" in {each["route"] for each in proof if each["process"] == "edged"}
    # The attempts left it whole.
    assert box.status()["seal"] == {
        "sealed": True,
        "seccomp": True,
        "landlock_abi": box.status()["seal"]["landlock_abi"],
        "missing": [],
    }
    assert box.chat().status == 200

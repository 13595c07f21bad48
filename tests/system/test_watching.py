"""``edge add --watch`` beside a real daemon and real files: what is done to the folder is done to the index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models.store import Store
from tests.box import PATIENCE, Box, running


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


@contextmanager
def watching(box: Box, folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """``edge add --watch --json``, which has added what was there."""
    command = ["env", "--default-signal=INT", sys.executable, "-m", "edge_runtime.cli", "add", str(folder), "--watch"]
    world = {**os.environ, "EDGE_HOME": str(box.home)}
    with subprocess.Popen(
        [*command, "--json", *options], env=world, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def event(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next event of this kind."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == kind:
            return found
    raise AssertionError(f"no {kind} came; stderr: {process.stderr.read() if process.stderr else ''}")


def names(box: Box) -> set[str]:
    return {one["name"] for one in box.get("/edge/v1/documents").json["documents"]}


def test_files_that_come_change_move_and_go_do_so_in_the_index(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nPump A is green.\n", "utf-8")
    box.add("other.md", b"# Other\n\nIt came by itself.\n")
    with watching(box, folder) as process:
        assert event(process, "watching")["added"] == 1
        (folder / "sub").mkdir()
        (folder / "sub" / "b.md").write_text("# B\n\nPump B is blue.\n", "utf-8")
        assert event(process, "added")["name"] == "manuals/sub/b.md"
        (folder / "a.md").write_text("# A\n\nPump A is red now.\n", "utf-8")
        assert event(process, "added")["name"] == "manuals/a.md"
        assert box.post("/edge/v1/search", {"query": "red pump"}).json["hits"][0]["document"] == "manuals/a.md"
        (folder / "sub").rename(folder / "moved")
        assert event(process, "added")["name"] == "manuals/moved/b.md"
        assert event(process, "removed")["name"] == "manuals/sub/b.md"
        (folder / "a.md").unlink()
        assert event(process, "removed")["name"] == "manuals/a.md"
        assert names(box) >= {"manuals/moved/b.md", "other.md"}
        assert not names(box) & {"manuals/a.md", "manuals/sub/b.md"}
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_a_file_that_cannot_be_read_is_told_of_once_and_again_when_it_changed(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "x.bin").write_bytes(b"\x7fELF\0\0")
    with watching(box, folder) as process:
        assert event(process, "skipped")["path"].endswith("x.bin")
        assert event(process, "watching")["skipped"] == 1
        (folder / "good.md").write_text("# Good\n\nIt is good.\n", "utf-8")
        assert event(process, "added")["name"] == "damaged/good.md"
        (folder / "x.bin").write_text("Now it is a text.", "utf-8")
        assert event(process, "added")["name"] == "damaged/x.bin"


def test_a_folder_that_is_away_as_a_whole_takes_no_document_with_it(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / "s.md").write_text("# S\n\nThe stick holds this.\n", "utf-8")
    with watching(box, folder) as process:
        event(process, "watching")
        folder.rename(tmp_path / "pulled")
        assert event(process, "away")["folder"] == str(folder)
        (tmp_path / "pulled").rename(folder)
        assert event(process, "watching")["unchanged"] == 1
        assert "stick/s.md" in names(box)
        (folder / "t.md").write_text("# T\n\nAnd this.\n", "utf-8")
        assert event(process, "added")["name"] == "stick/t.md"


def test_where_the_system_tells_of_nothing_the_folder_is_looked_at_now_and_then(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "far"
    folder.mkdir()
    with watching(box, folder, "--poll") as process:
        event(process, "watching")
        (folder / "f.md").write_text("# F\n\nIt lies far away.\n", "utf-8")
        assert event(process, "added")["name"] == "far/f.md"


def test_a_daemon_that_is_killed_and_started_again_is_waited_for(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "lasting"
    folder.mkdir()
    with watching(box, folder) as process:
        event(process, "watching")
        box.stop(signal.SIGKILL)
        (folder / "n.md").write_text("# N\n\nThis came while nobody was there.\n", "utf-8")
        assert "no daemon" in event(process, "waiting")["reason"]
        box.start()
        assert event(process, "added")["name"] == "lasting/n.md"
        assert event(process, "going on")


def test_a_file_is_not_followed(box: Box, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nText.\n", "utf-8")
    with watching(box, tmp_path / "a.md") as process:
        assert process.wait(PATIENCE) == 2

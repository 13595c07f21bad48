"""``edge index`` as a person sees it, and what it asks of the daemon."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from edge_runtime.knowledge_protocol import MountList, Progress
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.cli.golden import compare
from tests.edge_runtime.scripted import error_reply, json_reply, stream_reply

MOUNTS = "GET /edge/v1/index/mounts"
MOUNT = "POST /edge/v1/index/mounts"
CONTENT = b"SQLite format 3\0 and more"


@pytest.fixture
def file(shell: Shell, tmp_path: Path) -> Path:
    (shell.home / "mounts").mkdir()
    (tmp_path / "vendor.index").write_bytes(CONTENT)
    return tmp_path / "vendor.index"


def test_an_export_is_told_with_what_another_box_needs(shell: Shell) -> None:
    steps = [("progress", Progress(done=done, total=7)) for done in range(8)]
    with shell.daemon({"POST /edge/v1/index/export": stream_reply([*steps, ("done", samples.EXPORTED)])}) as daemon:
        done = shell.edge("index", "export", "site", "--collection", "pumps", "--collection", "valves")
    assert (done.code, done.out) == (0, "/var/lib/edge/exports/site.index\n")
    assert f"sha256 {'ab' * 32}" in done.err
    assert "exporting site: 100 %" in done.err
    (asked,) = daemon.asked
    assert asked.json == {"name": "site", "collections": ["pumps", "valves"], "stream": True}


def test_an_export_is_moved_where_it_is_wanted_and_never_over_another_file(shell: Shell, tmp_path: Path) -> None:
    (shell.home / "exports").mkdir()
    written = shell.home / "exports" / "site.index"
    written.write_bytes(CONTENT)
    reply = stream_reply([("done", msgspec.structs.replace(samples.EXPORTED, path=str(written)))])
    with shell.daemon({"POST /edge/v1/index/export": reply}) as daemon:
        moved = shell.edge("index", "export", "site", "-o", tmp_path / "out.index")
        taken = shell.edge("index", "export", "site", "-o", tmp_path / "out.index")
    assert (moved.code, (tmp_path / "out.index").read_bytes(), written.exists()) == (0, CONTENT, False)
    assert (taken.code, len(daemon.asked)) == (4, 1)


def test_a_mount_is_copied_into_the_home_and_asked_for_by_its_digest(shell: Shell, file: Path) -> None:
    with shell.daemon({MOUNTS: json_reply(MountList(mounts=[]))}) as daemon:
        done = shell.edge("index", "mount", file, "--name", "vendor", "--uid", "1000", "--gid", "7", "--json")
    assert done.code == 0, done.err
    compare("index_mount", done.json)
    (copy,) = (shell.home / "mounts").iterdir()
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (CONTENT, 0o600)
    assert daemon.asked[-1].json == {
        "name": "vendor",
        "file": copy.name,
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "uids": [1000],
        "gids": [7],
    }
    assert file.read_bytes() == CONTENT


def test_a_mount_that_the_daemon_refuses_leaves_no_copy_and_names_the_file(shell: Shell, file: Path) -> None:
    def refuse(asked: object) -> object:
        name = asked.json["file"]  # type: ignore[attr-defined]
        return error_reply(507, "storage", f"{name} is damaged; get the file again")

    with shell.daemon({MOUNTS: json_reply(MountList(mounts=[])), MOUNT: refuse}):
        done = shell.edge("index", "mount", file, "--name", "vendor")
    assert done.code == 1
    assert "error: vendor.index is damaged\n  get the file again\n" in done.err
    assert list((shell.home / "mounts").iterdir()) == []


def test_a_mount_under_a_name_that_is_taken_is_refused_before_anything_is_copied(shell: Shell, file: Path) -> None:
    with shell.daemon() as daemon:
        done = shell.edge("index", "mount", file, "--name", "vendor")
    assert done.code == 4
    assert "choose another name" in done.err
    assert [one.method for one in daemon.asked] == ["GET"]
    assert list((shell.home / "mounts").iterdir()) == []


def test_what_is_no_file_or_another_one_is_not_mounted(shell: Shell, file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with shell.daemon({MOUNTS: json_reply(MountList(mounts=[]))}) as daemon:
        missing = shell.edge("index", "mount", tmp_path / "missing", "--name", "vendor")
        pipe = shell.edge("index", "mount", tmp_path / "pipe", "--name", "vendor")
        other = shell.edge("index", "mount", file, "--name", "vendor", "--sha256", "0" * 64)
    assert (missing.code, pipe.code, other.code) == (1, 2, 1)
    assert "No such file" in missing.err
    assert "is no file" in pipe.err
    assert hashlib.sha256(CONTENT).hexdigest() in other.err
    assert {one.method for one in daemon.asked} == {"GET"}
    assert list((shell.home / "mounts").iterdir()) == []


def test_mounts_are_listed_with_what_is_wrong_with_them(shell: Shell) -> None:
    with shell.daemon():
        done = shell.edge("index", "mounts")
    assert done.code == 0
    assert "vendor-pumps, vendor-valves" in done.out
    assert "old: its file is gone; unmount it" in done.err


def test_nothing_is_unmounted_that_is_not_there_or_without_a_yes(shell: Shell) -> None:
    with shell.daemon() as daemon:
        unknown = shell.edge("index", "unmount", "other", "--yes")
        unasked = shell.edge("index", "unmount", "vendor")
    assert (unknown.code, unasked.code) == (1, 2)
    assert {one.method for one in daemon.asked} == {"GET"}


def test_embedding_anew_is_watched_to_its_end_and_its_failure_is_told(shell: Shell) -> None:
    halted = msgspec.structs.replace(
        samples.INDEX, embedder="old@1", note="the index holds vectors of old@1; go on with: edge index reembed"
    )
    with shell.daemon():
        done = shell.edge("index", "reembed")
    assert (done.code, done.out) == (0, "")
    assert "embedded 7 documents anew" in done.err
    with shell.daemon({"GET /edge/v1/index": json_reply(halted)}):
        failed = shell.edge("index", "reembed")
        begun = shell.edge("index", "reembed", "--no-wait")
    assert failed.code == 1
    assert "go on with: edge index reembed" in failed.err
    assert begun.code == 0

"""A disk that is full: new documents are refused, nothing stored is lost, and the box goes on."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.store import Store
from tests.box import Box, furnish

DISK_BYTES = 8 * 2**20
LARGE = b"# New\n\n" + b"The new pump is red. It hums at night.\n" * 20_000


def _mount(place: Path) -> bool:
    """A small disk of memory at ``place``; False where this user may mount nothing."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", os.fspath(place)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


@contextlib.contextmanager
def _filled(home: Path) -> Iterator[None]:
    """Every byte of the disk is taken."""
    filler = home / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def _stunted(box: Box) -> Iterator[None]:
    """The kernel lets no file of the daemon grow past 4 MiB: a write fails in the middle of a transaction."""
    assert box.process is not None
    unlimited = resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (4 * 2**20, unlimited[1]))
    yield
    resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, unlimited)


@pytest.fixture
def disk() -> Iterator[tuple[Path, bool]]:
    """A home's place in a short path, and whether it is a small disk of its own."""
    root = Path(tempfile.mkdtemp(prefix="box-"))
    mounted = _mount(root)
    try:
        yield root / "home", mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", os.fspath(root)], check=True)
        shutil.rmtree(root, ignore_errors=True)


def test_a_full_disk_refuses_new_documents_and_loses_no_old_one(shared_store: Store, disk: tuple[Path, bool]) -> None:
    home, small = disk
    box = Box(furnish(home, None))
    (home / "models").symlink_to(shared_store.root)
    with contextlib.ExitStack() as ends:
        ends.callback(lambda: box.process and box.stop())
        box.start()
        assert box.add("kept.md", b"# Kept\n\nThe kept pump is green.\n").status == 200
        before = box.get("/edge/v1/documents").json
        with _filled(home) if small else _stunted(box):
            reply = box.add("new.md", LARGE)
            assert (reply.status, reply.error["code"]) == (507, "storage")
            assert "free" in reply.error["message"]
            assert box.chat().status == 200
            assert box.get("/edge/v1/documents").json == before
        assert box.post("/edge/v1/search", {"query": "kept pump"}).json["hits"][0]["document"] == "kept.md"
        assert box.add("new.md", b"# New\n\nThe new pump is red.\n").status == 200
        assert box.stop() == 0
        box.start()
        assert [one["name"] for one in box.get("/edge/v1/documents").json["documents"]] == ["kept.md", "new.md"]

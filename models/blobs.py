"""Files named by what they are: ``sha256-HEX``, read-only, complete from the moment they have that name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from models import records

_BLOCK = 4 * 2**20
_PREFIX = "sha256-"


def digest(path: Path, step: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file in lower-case hex; ``step`` is told the bytes read so far."""
    state = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            done += len(block)
            if step is not None:
                step(done)
    return state.hexdigest()


def size_of(path: Path) -> int | None:
    """Bytes, or None where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return None


class Blobs:
    """The blobs in ``root``; ``staging``, on the same file system, takes what has to be copied there."""

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self._staging = staging

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be."""
        return self.root / f"{_PREFIX}{sha256}"

    def find(self, sha256: str, size: int | None = None) -> Path | None:
        """The blob if it is here (and ``size`` bytes long)."""
        found = size_of(self.path(sha256))
        return self.path(sha256) if found is not None and size in (None, found) else None

    def used(self) -> int:
        """Bytes of all of them."""
        return sum(size_of(path) or 0 for path in self.root.glob("*"))

    def take(self, path: Path, sha256: str) -> None:
        """Make ``path`` the blob ``sha256``: flushed before it gets that name, and out of the page cache."""
        target = self.path(sha256)
        if path == target:
            return
        with path.open("rb") as file:
            os.fsync(file.fileno())
            # Written piece by piece it lies there in small pages; read ahead from the disk, it comes in large ones, and
            # a writer whose weights are mapped so is a tenth faster.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        path.chmod(0o444)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            staged = self._staging / f"copy-{sha256}"
            shutil.copyfile(path, staged)
            self.take(staged, sha256)
            path.unlink()
        records.sync_directory(target.parent)

    def sweep(self, named: Collection[str]) -> None:
        """Free what is not among the digests ``named``, and copies that a kill left half made."""
        for path in self._staging.glob("copy-*"):
            path.unlink()
        for path in self.root.glob(f"{_PREFIX}*"):
            if path.name.removeprefix(_PREFIX) not in named:
                path.unlink()

"""One file being gathered, a directory of its own: the bytes so far, and what they must become.

data       the bytes so far
state.json what is known of the whole: its length, its version at the source, how far ``data`` can be trusted
lock       flock'd by the one process that writes here
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from models import records
from models.errors import StoreError

Room = Callable[[int, int, str], None]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """``total`` is the whole length in bytes; ``tag`` the source's name for this version of the file (an ETag);
    ``parts`` the length of ``data`` after each part that is wholly in it."""

    total: int | None = None
    tag: str | None = None
    parts: tuple[int, ...] = ()


class Partial:
    """The gathering of one file at ``path``. ``room`` refuses a size that does not fit (:meth:`Store._room_for`)."""

    def __init__(self, path: Path, room: Room) -> None:
        self.path = path
        self.data = path / "data"
        self._room = room

    @property
    def state(self) -> State:
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=State)
        except (OSError, msgspec.MsgspecError):
            return State()

    @property
    def size(self) -> int:
        """Bytes gathered so far."""
        try:
            return self.data.stat().st_size
        except OSError:
            return 0

    def expect(self, state: State, what: str) -> None:
        """Set down what the whole will be, having asked whether it fits.

        Raises:
            StoreError: it does not.
        """
        if state.total is not None:
            self._room(state.total, max(self.size, self.state.total or 0), what)
        records.write(self.path / "state.json", state)

    def append_at(self, offset: int) -> BinaryIO:
        """``data`` opened for appending, cut to ``offset`` bytes first."""
        file = self.data.open("r+b" if self.data.exists() else "wb")
        file.truncate(offset)
        file.seek(offset)
        return file

    def reset(self) -> None:
        """Throw away what was gathered: it turned out to be something else."""
        for name in ("data", "state.json"):
            (self.path / name).unlink(missing_ok=True)

    def scratch(self) -> Path:
        """An empty directory for the downloader's own files; what a killed one left in it is gone."""
        path = self.path / "scratch"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
        return path


@contextlib.contextmanager
def gathering(path: Path) -> Iterator[None]:
    """Hold the directory of one model against other processes; a second one waits until the first has ended.

    Whoever holds it may remove it, lock and all: the waiting ones notice. Nothing stays where nothing was gathered.

    Raises:
        StoreError: the disk refused.
    """
    try:
        while True:
            try:
                path.mkdir(parents=True, exist_ok=True)
                lock = (path / "lock").open("ab")
            except (FileNotFoundError, FileExistsError):
                if path.is_file():
                    raise
                continue  # removed meanwhile by the one who held it
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _same(lock, path / "lock"):
                break
            lock.close()
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    with lock:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if [item.name for item in path.iterdir()] == ["lock"]:
                    shutil.rmtree(path)


def held_bytes(root: Path) -> int:
    """Bytes that the unfinished downloads under ``root`` hold, or will hold if they are running now."""
    total = 0
    for model in root.glob("*"):
        running = _running(model / "lock")
        for path in model.glob("*"):
            size = sum(_length(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)
            expected = Partial(path, lambda *_: None).state.total or 0
            total += max(size, expected) if running else size
    return total


def _running(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0

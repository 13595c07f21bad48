"""Which files are meant by paths on the command line: a walk that holds little in memory, however many there are.

Links within an argument are followed, each folder is entered once (so a loop of links ends), and hidden entries of a
folder are left out. Reads a file whole, and only as it is when nobody writes to it.
"""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.cli.output import size
from edge_runtime.errors import DocumentError

_SORTED = 10_000  # entries of a folder that are sorted together; of a larger one so many are held at a time
_LOST = "\ufffd"
_TRIES = 2

Refuse = Callable[[Path, str], None]  # a path, and why it is left out


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file to add; ``name`` is the document's: the path below, and with, the argument that led to it."""

    path: Path
    name: str
    size: int = 0  # bytes, when it was found
    stamp: int = 0  # another one where the file is another, or was written to


@dataclass(frozen=True, slots=True)
class Top:
    """An argument of the command line: nothing outside its real path is read through a link in it."""

    path: Path
    name: str
    real: str

    @classmethod
    def of(cls, path: Path) -> Top:
        # `edge add .` needs a name that is not a dot.
        name = path.name if path.name not in {"", ".."} else Path(os.path.realpath(path)).name
        return cls(path, name, os.path.realpath(path))

    def name_of(self, path: Path) -> str:
        """The name of ``path``, which lies below this or is it."""
        below = os.path.relpath(path, self.path)
        return self.name if below == "." else f"{self.name}/{below}"


def find(arguments: Sequence[Path], refuse: Refuse) -> Iterator[FoundFile]:
    """Files named by ``arguments`` and those below their folders, in order of name.

    What cannot be read, a link that leads out of its argument, and a second file of the same name are refused.
    """
    entered: set[tuple[int, int]] = set()
    lost: set[str] = set()  # names that stand for several: what is not UTF-8 in them cannot travel as JSON
    tops = [Top.of(argument) for argument in arguments]
    for number, top in enumerate(tops):
        earlier = [other for other in tops[:number] if other.name == top.name]
        for file in walk(top, top.path, refuse, entered):
            if (twin := _twin(file, top, earlier)) is not None:
                if not _same(twin, file.path):
                    refuse(file.path, f"{twin} has the same name; add them in two calls from other folders")
            elif _LOST in file.name and file.name in lost:
                refuse(file.path, "another file has the same name but for characters that are not UTF-8; rename it")
            else:
                if _LOST in file.name:
                    lost.add(file.name)
                yield file


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _twin(file: FoundFile, top: Top, earlier: Sequence[Top]) -> Path | None:
    """The file of an earlier argument that has the name of ``file``."""
    for other in earlier:
        path = other.path / os.path.relpath(file.path, top.path) if file.path != top.path else other.path
        if path.is_file():
            return path
    return None


def walk(top: Top, start: Path, refuse: Refuse, entered: set[tuple[int, int]]) -> Iterator[FoundFile]:
    """The files at and below ``start``, which is ``top`` or lies in it; ``entered`` are the folders seen so far."""
    here = (os.fspath(start), top.name_of(start))
    stack: list[tuple[str, Iterator[tuple[str, str]]]] = [(here[0], iter([here]))]
    while stack:
        path = stack[-1][0]
        try:
            step = next(stack[-1][1], None)
            if step is None:
                stack.pop()
                continue
            path, name = step
            info = os.stat(path)  # noqa: PTH116 (a Path for each of a million files costs more than the walk)
            if stat.S_ISREG(info.st_mode):
                stamp = hash((info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))
                yield FoundFile(Path(path), os.fsencode(name).decode("utf-8", "replace"), info.st_size, stamp)
            elif not stat.S_ISDIR(info.st_mode):
                refuse(Path(path), "it is neither a file nor a folder")
            elif (info.st_dev, info.st_ino) not in entered:
                entered.add((info.st_dev, info.st_ino))
                stack.append((path, _children(path, name, top, refuse)))
        except OSError as error:
            refuse(Path(path), error.strerror or str(error))
            if path == stack[-1][0]:  # the folder itself; its iterator is spent
                stack.pop()


def _children(path: str, name: str, top: Top, refuse: Refuse) -> Iterator[tuple[str, str]]:
    with os.scandir(path) as entries:
        seen = ((entry.name, entry.is_symlink()) for entry in entries if not entry.name.startswith("."))
        while part := sorted(itertools.islice(seen, _SORTED)):
            if len(part) < _SORTED:
                entries.close()  # a deep tree would otherwise hold many descriptors
            for child, is_link in part:
                where = f"{path}/{child}" if path != "/" else f"/{child}"
                if is_link and not Path(os.path.realpath(where)).is_relative_to(top.real):
                    refuse(Path(where), "it is a link out of the folder; add what it points to by its own name")
                else:
                    yield where, f"{name}/{child}"
            if len(part) < _SORTED:
                return


@dataclass(slots=True)
class Total:
    """How much there is to add, counted by a thread while adding begins; ``known`` once all of it is counted."""

    files: int = 0
    size: int = 0  # bytes
    known: bool = False
    _stopped: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, arguments: Sequence[Path]) -> Total:
        total = cls()
        threading.Thread(target=total._count, args=(list(arguments),), daemon=True).start()
        return total

    def stop(self) -> None:
        self._stopped.set()

    def _count(self, arguments: Sequence[Path]) -> None:
        for file in find(arguments, lambda *_: None):
            self.files += 1
            self.size += file.size
            if self._stopped.is_set():
                return
        self.known = True


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a file that nobody wrote to meanwhile; at most ``limit`` of them.

    Raises:
        DocumentError: it is larger, no file any more, or was written to during each of two readings.
        OSError: it cannot be read.
    """
    for _ in range(_TRIES):
        # Without O_NONBLOCK, a pipe that has taken the file's place would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise DocumentError("it is neither a file nor a folder")
            if before.st_size > limit:
                raise DocumentError(
                    f"it has {size(before.st_size)}; the limit is {size(limit)} (knowledge.document_bytes)"
                )
            content = file.readall()
            after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and len(content) <= limit:
            return content
    raise DocumentError("it is being written to; add it again when that is done")

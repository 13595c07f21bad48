"""The disk tier of the prefix tree: KV segments kept across restarts, each in a file of its own.

    KEY.kv          one segment (:mod:`.snapshot_format`), written whole or not at all
    .NAME.part      one that is being written, locked (flock) by its writer while that lives

Files are written by a thread: the cards in small boxes take their time. Several engines may share the directory.
Knows nothing of llama.cpp: a blob is bytes. A disk that refuses costs the tier, never a request.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_runtime.engine.snapshot_format import (
    HEAD_BYTES,
    Entry,
    Header,
    decode,
    encode,
    header_size,
    identify,
    is_whole,
    key_of,
)

__all__ = ["Entry", "Snapshots"]

QUEUE_ENTRIES = 8  # segments that wait for the disk; more are dropped
QUEUE_BYTES = 64 * 2**20
CLOSE_SECONDS = 2.0
_NAME = re.compile(r"[0-9a-f]{64}\.kv")
_LEFTOVER = re.compile(r"\.[0-9a-f]{64}\.\d+\.part")
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe under a name of ours must not be waited for
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Snapshots:
    """Segments below ``directory`` that belong to ``identity``: model, build, KV types, all that cells depend on.

    ``limit_bytes`` bounds the files of all identities together; the least recently used go first. 0: nothing is kept.
    No method raises for what the disk does.
    """

    def __init__(self, directory: Path, identity: str, limit_bytes: int) -> None:
        self._directory = directory
        self._identity = identify(identity)
        self._limit = limit_bytes
        self._off = limit_bytes <= 0
        self._waiting: deque[tuple[Entry, bytes]] = deque()
        self._queued: dict[str, bytes] = {}  # waiting, or being written
        self._changed = threading.Condition()
        self._purges = 0
        self._written = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._sweep()

    def entry(
        self, tokens: Sequence[int], start: int, *, domain: str = "", adapter: str = "", label: str = "", size: int = 0
    ) -> Entry:
        """The entry, with its key, of the cells of ``tokens[start:]``; ``adapter`` is a digest."""
        key = key_of(self._identity, domain=domain, adapter=adapter, tokens=tokens, start=start)
        return Entry(key, domain, adapter, tuple(tokens), start, label, size)

    def index(self) -> list[Entry]:
        """What is there for this identity, the least recently used first; reads headers alone.

        A damaged file is removed, and what a lowered limit has no room for; another identity's, and one that is not
        ours, are left alone.
        """
        with contextlib.suppress(OSError):
            self._make_room(0)
        found: list[tuple[tuple[bool, float], Entry]] = []
        for path in self._files():
            with contextlib.suppress(OSError), _opened(path) as descriptor:
                status = os.fstat(descriptor)
                match _read_header(descriptor, path, status):
                    case None:
                        self._discard(path)
                    case (Header(identity=self._identity), entry):
                        found.append((_use(status), entry))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def save(self, entry: Entry, blob: bytes) -> bool:
        """Have ``blob`` written under ``entry``'s key, soon; false: dropped, the disk is off, behind or small."""
        with self._changed:
            full = len(self._waiting) >= QUEUE_ENTRIES or sum(map(len, self._queued.values())) + len(blob) > QUEUE_BYTES
            if entry.key in self._queued:
                return True
            if self._off or self._closed or len(blob) > self._limit or (full and self._queued):
                return False
            self._waiting.append((entry, blob))
            self._queued[entry.key] = blob
            if self._thread is None:
                # A daemon: a disk that hangs must not keep the process from ending.
                self._thread = threading.Thread(target=self._write_all, name="snapshots", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def load(self, key: str) -> bytes | None:
        """The blob as it was saved; None: it is gone, or damaged (and is removed)."""
        with self._changed:
            if key in self._queued:
                return self._queued[key]
        path = self._path(key)
        with contextlib.suppress(OSError), _opened(path) as descriptor:
            blob = _read_blob(descriptor, path)
            if blob is None:
                self._discard(path)
                return None
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return blob
        return None

    def touch(self, key: str) -> None:
        """Count it as used now."""
        with contextlib.suppress(OSError):
            os.utime(self._path(key))

    def drop(self, key: str) -> None:
        with self._changed:
            self._queued.pop(key, None)
            self._discard(self._path(key))

    def purge(self) -> int:
        """Remove every segment of every identity, and what still waits to be written; how many files there were."""
        with self._changed:
            self._purges += 1
            self._waiting.clear()
            self._queued.clear()
            files = list(self._files())
            for path in (*files, *self._named(_LEFTOVER)):  # one that is being written has no name any more then
                self._discard(path)
        return len(files)

    def flush(self, seconds: float) -> bool:
        """Wait until all that was saved is on disk; false: it is not, after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queued, seconds)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what waits, for at most so long; what is left then is lost."""
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    # ---- the writer ------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                entry, blob = self._waiting.popleft()
                purges = self._purges
            try:
                if not self._off:
                    self._write(entry, blob, purges)
            except OSError as error:
                self._give_up(error)
            finally:
                with self._changed:
                    if self._queued.get(entry.key) is blob:
                        del self._queued[entry.key]
                    self._changed.notify_all()

    def _write(self, entry: Entry, blob: bytes, purges: int) -> None:
        head = encode(entry, self._identity, blob)
        path = self._path(entry.key)
        if path.exists():
            self.touch(entry.key)
            return
        if not self._make_room(len(head) + len(blob)):
            return
        self._written += 1
        part = self._directory / f".{entry.key}.{os.getpid()}{self._written:06}.part"
        descriptor = os.open(part, _WRITE, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for data in (head, blob):
                _write_whole(descriptor, data)
            os.fsync(descriptor)
            with self._changed:
                # What was purged or dropped meanwhile must not come back.
                if purges == self._purges and entry.key in self._queued:
                    with contextlib.suppress(FileNotFoundError):
                        part.rename(path)
        finally:
            os.close(descriptor)
            part.unlink(missing_ok=True)
        _sync_directory(self._directory)

    def _make_room(self, size: int) -> bool:
        """Remove the least recently used until ``size`` more bytes are within the limit; false: they cannot be."""
        if size > self._limit:
            return False
        held: list[tuple[tuple[bool, float], int, Path]] = []
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.lstat()
                held.append((_use(status), status.st_size, path))
        total = sum(count for _, count, _ in held)
        for _, count, path in sorted(held):
            if total + size <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= count
        return True

    def _give_up(self, error: OSError) -> None:
        if self._off:
            return
        self._off = True
        place = error.filename or self._directory
        sys.stderr.write(
            f"engine: {place} cannot be written ({error.strerror}): prompts are not kept on disk until the next start; "
            "make room, or let this user write there\n"
        )
        sys.stderr.flush()

    # ---- files -----------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.kv"

    def _files(self) -> Iterator[Path]:
        return self._named(_NAME)

    def _named(self, pattern: re.Pattern[str]) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from [path for path in self._directory.iterdir() if pattern.fullmatch(path.name)]

    def _discard(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()

    def _sweep(self) -> None:
        """Remove what killed writers left; a lock tells those that live."""
        for path in self._named(_LEFTOVER):
            with contextlib.suppress(OSError), _opened(path) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _use(status: os.stat_result) -> tuple[bool, float]:
    """What sorts files by their last use. Those of a clock that ran ahead come first: they would be the last to go."""
    return status.st_mtime <= time.time(), status.st_mtime


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _READ)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_header(descriptor: int, path: Path, status: os.stat_result) -> tuple[Header, Entry] | None:
    """The header of a file whose length and name fit it; None: damaged."""
    if not stat.S_ISREG(status.st_mode):
        return None
    head = os.read(descriptor, HEAD_BYTES)
    size = header_size(head)
    if size is None or size > status.st_size:
        return None
    found = decode(head, os.read(descriptor, size))
    if found is None:
        return None
    header, entry = found
    whole = status.st_size == HEAD_BYTES + size + header.blob_bytes and path.name == f"{entry.key}.kv"
    return found if whole else None


def _read_blob(descriptor: int, path: Path) -> bytes | None:
    found = _read_header(descriptor, path, os.fstat(descriptor))
    if found is None:
        return None
    header, _ = found
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        blob = file.read(header.blob_bytes)
    return blob if is_whole(header, blob) else None


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Sends files to the daemon, several at once, and only those that it does not have; keeps count of what became of them.

Holds a few files in memory at a time, whatever their number.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.cli import progress
from edge_runtime.cli.output import clean_line, say
from edge_runtime.cli.walking import FoundFile, Total, read_whole
from edge_runtime.client import Client, SyncClient
from edge_runtime.errors import BusyError, DeadlineError, DocumentError, EdgeError, EngineError, RequestError
from edge_runtime.knowledge_protocol import Document, DocumentAdded, DocumentSum
from edge_runtime.protocol import DEFAULT_COLLECTION
from edge_runtime.room import Room

AT_ONCE = 12  # files on their way: small ones leave the embedder idle if they come one by one
ROOM_BYTES = 8 * 2**20  # of them together; a larger one goes alone
ASKED_AT_ONCE = 64  # files that are read and asked about together

# Faults of one file; anything else (no daemon, a full disk, no permission) ends the command.
_SKIPPED = (BusyError, DeadlineError, DocumentError, EngineError, RequestError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How documents are added. ``limit`` is the largest that the daemon takes, in bytes."""

    collection: str = DEFAULT_COLLECTION
    tags: tuple[str, ...] = ()
    date: str | None = None
    limit: int = 2**30


@dataclass(slots=True)
class Tally:
    """What became of the files: counts, and with ``keep`` each of them. ``tell`` gets a line for what must be known."""

    keep: bool = False
    tell: Callable[[str], None] = say
    settled: Callable[[FoundFile, Document], None] | None = None  # gets each file that is in the index now
    refused: Callable[[Path, str], None] | None = None  # gets what is skipped, in place of a line for it
    added: list[Document] = field(default_factory=list)
    unchanged: list[Document] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    warnings: list[tuple[str, str]] = field(default_factory=list)  # path, what to know
    documents: int = 0  # added
    passages: int = 0
    embedded: int = 0  # of the passages; the vectors of the others were there
    reused: int = 0
    same: int = 0  # unchanged
    failures: int = 0
    later: set[Path] = field(default_factory=set)  # of these, what may be taken if it is sent again
    _lock: threading.Lock = field(default_factory=threading.Lock)  # files are read in a thread

    def add(self, file: FoundFile, reply: DocumentAdded) -> None:
        if reply.unchanged:
            self.leave(file, reply.document)
            return
        self.documents += 1
        self.passages += reply.document.chunks
        self.embedded += reply.embedded
        self.reused += reply.reused
        if self.keep:
            self.added.append(reply.document)
        for warning in reply.warnings:
            if self.keep:
                self.warnings.append((str(file.path), warning))
            self.tell(f"note: {clean_line(str(file.path))}: {clean_line(warning)}")
        if self.settled is not None:
            self.settled(file, reply.document)

    def leave(self, file: FoundFile, document: Document) -> None:
        """It is there already, as it is."""
        self.same += 1
        if self.keep:
            self.unchanged.append(document)
        if self.settled is not None:
            self.settled(file, document)

    def fail(self, path: Path, reason: str) -> None:
        with self._lock:
            self.failures += 1
            if self.keep:
                self.failed.append((str(path), reason))
        if self.refused is not None:
            self.refused(path, reason)
            return
        self.tell(f"skipped: {clean_line(str(path))}: {clean_line(reason)}")

    def __str__(self) -> str:
        parts = [f"added {self.documents} documents, {self.passages} passages"]
        if self.reused:
            parts[0] += f" ({self.embedded} of them new)"
        if self.same:
            parts.append(f"{self.same} unchanged")
        if self.failures:
            parts.append(f"{self.failures} skipped")
        return "; ".join(parts)


def add_files(
    box: SyncClient, files: Iterable[FoundFile], tally: Tally, terms: Terms, *, total: Total | None = None
) -> None:
    """Send to the daemon what it does not have of ``files``; ``total`` is how much they are (None: show no bar)."""
    with progress.bars("bytes") if total is not None else nullcontext(progress.Silence()) as bars:
        told, tally.tell = tally.tell, bars.say if tally.tell is say else tally.tell
        try:
            box.run(_Sending(box.client, tally, terms, bars, total).send(iter(files)))
        finally:
            tally.tell = told


@dataclass(frozen=True, slots=True)
class _Read:
    file: FoundFile
    sha256: str
    content: bytes | None  # None: too large to be kept until it is known whether it must be sent


@dataclass(slots=True)
class _Sending:
    client: Client
    tally: Tally
    terms: Terms
    bars: progress.Bars
    total: Total | None
    files: int = 0
    done: int = 0  # bytes
    queue: asyncio.Queue[_Read | None] = field(default_factory=lambda: asyncio.Queue(AT_ONCE))
    room: Room = field(default_factory=lambda: Room(ROOM_BYTES, AT_ONCE))

    async def send(self, files: Iterator[FoundFile]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._work())
                await self._read(files)
                for _ in range(AT_ONCE):
                    await self.queue.put(None)
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        self.bars.update("adding", self.done, self.done)

    async def _read(self, files: Iterator[FoundFile]) -> None:
        """Read files and ask which of them are there; the others go into the queue."""
        while part := await asyncio.to_thread(self._take, files):
            sums = [DocumentSum(name=one.file.name, sha256=one.sha256) for one in part if _travels(one.file.name)]
            terms = self.terms
            found = await self.client.check_documents(
                sums, collection=terms.collection, tags=terms.tags, date=terms.date
            )
            there = {document.name: document for document in found.documents}
            for one in part:
                if (document := there.get(one.file.name)) is not None:
                    self.tally.leave(one.file, document)
                    self._step(one.file)
                else:
                    await self.queue.put(one)

    def _take(self, files: Iterator[FoundFile]) -> list[_Read]:
        """The next few that can be read; none at the end."""
        part: list[_Read] = []
        held = 0
        for file in files:
            try:
                content = read_whole(file.path, self.terms.limit)
            except (DocumentError, OSError) as error:
                self._refuse(file, error)
                continue
            held += len(content)
            kept = content if held <= ROOM_BYTES else None
            part.append(_Read(file, hashlib.sha256(content).hexdigest(), kept))
            if len(part) == ASKED_AT_ONCE or held > ROOM_BYTES:
                break
        return part

    async def _work(self) -> None:
        while (one := await self.queue.get()) is not None:
            async with self.room.hold(one.file.size):
                self.bars.update("adding", self.done, self._size(), self._note(one.file.name))
                try:
                    await self._send(one)
                except _SKIPPED as error:
                    self._refuse(one.file, error)
                else:
                    self._step(one.file)

    async def _send(self, one: _Read) -> None:
        terms = self.terms
        content = one.content
        if content is None:
            content = await asyncio.to_thread(read_whole, one.file.path, terms.limit)
        reply = await self.client.add_document(
            one.file.name, content, collection=terms.collection, tags=terms.tags, date=terms.date
        )
        self.tally.add(one.file, reply)

    def _refuse(self, file: FoundFile, error: Exception) -> None:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if isinstance(error, EdgeError) and error.retryable and self.tally.settled is not None:
            self.tally.later.add(file.path)
        self.tally.fail(file.path, reason)
        self._step(file)

    def _step(self, file: FoundFile) -> None:
        self.files += 1
        self.done += file.size
        self.bars.update("adding", self.done, self._size(), self._note(file.name))

    def _size(self) -> float | None:
        return max(self.total.size, self.done) if self.total is not None and self.total.known else None

    def _note(self, name: str) -> str:
        known = f" of {self.total.files}" if self.total is not None and self.total.known else ""
        return f"{self.files}{known} files  {name}"


def _travels(name: str) -> bool:
    """Whether the daemon takes such a name; of one that it does not, adding says why."""
    return 0 < len(name) <= 1024

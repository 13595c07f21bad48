"""Adds documents: read and cut in a limited child, every word of them embedded, each stored in one transaction.

Several are on their way at once, so that one is read and another stored while the embedder works on a third.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.embedding.windows import pool
from edge_runtime.errors import TooLargeError
from edge_runtime.knowledge.cut_child import Cut
from edge_runtime.knowledge.digests import chunk_digest, text_digest
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.embedder import Embedder
from edge_runtime.knowledge.feed import Feed
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import EmbeddedChunk, Known, Matrix, PreparedDocument
from edge_runtime.knowledge_protocol import Document, DocumentAdded
from edge_runtime.room import Room

PLACES = 16  # documents on their way at once, and bytes of them together; a larger one goes alone
ROOM_BYTES = 16 * 2**20
RECENT_ROWS = 4096  # vectors of texts that were embedded last: lines that many documents share, a file that moved
_INLINE_BYTES = 2**20  # hashed within a millisecond

Reader = Callable[[str, bytes, Limits], Awaitable[Cut]]
Store = Callable[[PreparedDocument], Awaitable[Document]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A document as it came. Tags and a date that are not given stay as an older document of that name had them."""

    name: str
    content: bytes
    collection: str
    tags: tuple[str, ...] = ()
    date: str | None = None

    def leaves(self, older: Document, sha256: str) -> bool:
        """Whether adding it would leave ``older`` as it is."""
        return (
            older.sha256 == sha256
            and (not self.tags or set(self.tags) == set(older.tags))
            and self.date in {None, older.date}
        )


class Recent:
    """The vectors of the texts that were embedded last, by their digests."""

    def __init__(self, rows: int = RECENT_ROWS) -> None:
        self._most = rows
        self._rows = 0
        self._found: OrderedDict[bytes, EmbeddedChunk] = OrderedDict()

    def get(self, digest: bytes) -> EmbeddedChunk | None:
        found = self._found.get(digest)
        if found is not None:
            self._found.move_to_end(digest)
        return found

    def put(self, digest: bytes, found: EmbeddedChunk) -> None:
        if digest in self._found:
            return
        # A copy: the rows are a view of all that came with one request.
        self._found[digest] = EmbeddedChunk(found.rows.copy(), found.spans)
        self._rows += len(found.rows)
        while self._rows > self._most:
            _, oldest = self._found.popitem(last=False)
            self._rows -= len(oldest.rows)

    def forget(self) -> None:
        """A document was removed, and nothing of it may be left."""
        self._found.clear()
        self._rows = 0


@dataclass(slots=True)
class _Draft:
    """A document that was cut: what of it is known already, and the distinct texts that must be embedded."""

    cut: Cut
    known: Known
    chunk_keys: list[tuple[bytes, bytes]] = field(default_factory=list)  # digests: of the chunk, of its text alone
    sentence_keys: list[bytes] = field(default_factory=list)
    found: dict[bytes, EmbeddedChunk] = field(default_factory=dict)  # by the digest of the text
    missing: dict[bytes, str] = field(default_factory=dict)

    @classmethod
    def of(cls, made: Cut, known: Known, recent: Recent) -> _Draft:
        draft, text = cls(made, known), made.document.text
        for chunk in made.chunks:
            body = text[chunk.start : chunk.end]
            key, alone = chunk_digest(chunk.heading, body), text_digest(body)
            draft.chunk_keys.append((key, alone))
            if key not in known.chunks:
                draft._want(alone, body, recent)
        for span in made.sentences:
            body = text[span.start : span.end]
            alone = text_digest(body)
            draft.sentence_keys.append(alone)
            if alone not in known.sentences:
                draft._want(alone, body, recent)
        return draft

    def _want(self, digest: bytes, text: str, recent: Recent) -> None:
        if digest in self.found or digest in self.missing:
            return
        if (embedded := recent.get(digest)) is not None:
            self.found[digest] = embedded
        else:
            self.missing[digest] = text

    def count(self) -> tuple[int, int]:
        """Chunks whose vectors are computed, and those whose vectors were there."""
        computed = sum(key not in self.known.chunks and alone in self.missing for key, alone in self.chunk_keys)
        return computed, len(self.chunk_keys) - computed

    def prepare(self, arrival: Arrival, sha256: str, older: Document | None) -> PreparedDocument:
        document = self.cut.document
        embedded = [self.known.chunks.get(key) or self.found[alone] for key, alone in self.chunk_keys]
        return PreparedDocument(
            name=arrival.name,
            collection=arrival.collection,
            format=document.format,
            sha256=sha256,
            title=document.title,
            text=document.text,
            pages=document.pages,
            chunks=self.cut.chunks,
            windows=[one.rows for one in embedded],
            window_spans=[one.spans for one in embedded],
            digests=[key for key, _ in self.chunk_keys],
            sentences=self.cut.sentences,
            sentence_vectors=_sentence_vectors(self.sentence_keys, self.known, self.found),
            tags=arrival.tags or tuple(older.tags if older is not None else ()),
            date=arrival.date or (older.date if older is not None else None),
        )


def _sentence_vectors(keys: list[bytes], known: Known, found: Mapping[bytes, EmbeddedChunk]) -> Matrix:
    """(len(keys), width) float32. A sentence has the pooled vector of its windows, of which most have one."""
    if not keys:
        return np.empty((0, 0), np.float32)
    pooled = {key: pool(found[key].rows) for key in set(keys) if key not in known.sentences}
    rows = [pooled[key] if key in pooled else known.sentences[key] for key in keys]
    return np.asarray(rows, np.float32)


class Intake:
    """The way of documents into one index. For one event loop; ``read`` parses and cuts."""

    def __init__(self, index: Index, embedder: Embedder, limits: Limits, *, read: Reader) -> None:
        self.index = index
        self.recent = Recent()
        self._limits = limits
        self._read = read
        self._feed = Feed(embedder)
        self._room = Room(ROOM_BYTES, PLACES)

    @contextlib.asynccontextmanager
    async def place(self, content: bytes) -> AsyncIterator[None]:
        """A place for a document of so many bytes: :meth:`add` is called inside."""
        async with self._room.hold(len(content)):
            yield

    async def add(self, arrival: Arrival, store: Store | None = None) -> DocumentAdded:
        """Store a document in place of an older one of its name; one that says nothing new changes nothing.

        Cancelled before everything is embedded, it leaves nothing behind. ``store`` puts the prepared document into
        the index; None does that and no more.

        Raises:
            DocumentError: the file cannot be read, with what to do about it.
            TooLargeError: over ``limits.document_bytes`` or ``limits.text_chars``.
            StorageError: the disk is full or the index is damaged; the older document is still there.
            EngineError: the embedder is not there.
        """
        name, content, limits = arrival.name, arrival.content, self._limits
        if len(content) > limits.document_bytes:
            raise TooLargeError(
                f"{name} has {len(content)} bytes and the limit is {limits.document_bytes}: split it, or raise "
                "knowledge.document_bytes in edge.toml"
            )
        sha256 = _sum(content) if len(content) < _INLINE_BYTES else await asyncio.to_thread(_sum, content)
        older = await asyncio.to_thread(self.index.named, arrival.collection, name)
        if older is not None and older.sha256 == sha256:
            labelled = await asyncio.to_thread(
                self.index.label, older.id, tags=arrival.tags or older.tags, date=arrival.date or older.date
            )
            return DocumentAdded(document=labelled, unchanged=True)
        made = await self._read(name, content, limits)
        known = Known() if older is None else await asyncio.to_thread(self.index.known, arrival.collection, name)
        draft = _Draft.of(made, known, self.recent)
        embedded = await self._feed.embed(list(draft.missing.values()))
        for digest, one in zip(draft.missing, embedded, strict=True):
            draft.found[digest] = one
            self.recent.put(digest, one)
        document = draft.prepare(arrival, sha256, older)
        stored = await (store(document) if store is not None else asyncio.to_thread(self.index.add, document))
        computed, reused = draft.count()
        return DocumentAdded(document=stored, warnings=list(made.document.warnings), embedded=computed, reused=reused)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

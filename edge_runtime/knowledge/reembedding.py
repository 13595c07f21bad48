"""Embeds a whole index anew for another model, into a second file, and puts that in the first one's place.

The index answers meanwhile, and documents can be removed. Each document is one transaction of the second file, so that
after ``kill -9`` the work goes on with the next one. Texts, chunks and ids stay as they are: only vectors change, and
weights that were fitted to the former ones are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from edge_runtime.embedding.windows import pool
from edge_runtime.errors import StorageError
from edge_runtime.knowledge import rows, storing
from edge_runtime.knowledge.copying import Copying, Window
from edge_runtime.knowledge.digests import count_visible
from edge_runtime.knowledge.embedder import Embedder
from edge_runtime.knowledge.feed import Feed
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import EmbeddedChunk, Matrix

Told = Callable[[int, int], None]  # documents done, of so many
_Embedded = dict[str, EmbeddedChunk]  # by text


@dataclass(frozen=True, slots=True)
class _Text:
    """A stored document as it has to be embedded: (id, start, text) of its chunks, and its sentences, in order."""

    key: int
    whole: str
    chunks: list[tuple[int, int, str]]
    sentences: list[str]

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys([*(text for *_, text in self.chunks), *self.sentences]))


class Reembedding:
    """``index`` holds vectors of another model; ``name`` and ``width`` (numbers of a vector) are the new one's."""

    def __init__(self, index: Index, embedder: Embedder, path: Path, *, name: str, width: int) -> None:
        self.index = index
        self.name = name
        self.width = width
        self._path = path
        self._feed = Feed(embedder, at_once=1)  # a question never waits for more than one request

    async def run(self, told: Told) -> None:
        """Go on where an earlier run stopped, to the end. Cancelled, it leaves the index as it is.

        Raises:
            EngineError: the embedder is not there.
            StorageError: the disk is full, or a file is damaged; the index is as it was.
        """
        target = await asyncio.to_thread(self._open)
        try:
            while True:
                missing, total = await asyncio.to_thread(self._compare, target)
                told(total - len(missing), total)
                for number, identity in enumerate(missing, total - len(missing) + 1):
                    await self._embed(target, identity)
                    told(number, total)
                if not missing and await asyncio.to_thread(self._finish, target):
                    return
        finally:
            await asyncio.to_thread(target.close)

    def _open(self) -> Index:
        """The second file; one that is of a third model, or damaged, is begun anew."""
        try:
            target = Index.open(self._path, embedder=self.name, width=self.width)
        except StorageError:
            discard(self._path)
            return Index.open(self._path, embedder=self.name, width=self.width)
        if target.stale:
            target.close()
            discard(self._path)
            target = Index.open(self._path, embedder=self.name, width=self.width)
        return target

    def _compare(self, target: Index) -> tuple[list[str], int]:
        """Ids that the second file lacks, and how many there are in all; what is gone is removed there too."""
        with self.index.database.reading() as source:
            wanted = _identities(source)
        with target.database.reading() as connection:
            held = _identities(connection)
        gone = [identity for identity in held if identity not in wanted]
        for identity in gone:
            with target.database.writing() as connection:
                storing.purge(connection, held[identity])
        return [identity for identity in wanted if identity not in held], len(wanted)

    async def _embed(self, target: Index, identity: str) -> None:
        document = await asyncio.to_thread(self._read, identity)
        if document is None:
            return
        texts = document.texts
        embedded = dict(zip(texts, await self._feed.embed(texts), strict=True))
        await asyncio.to_thread(self._store, target, identity, document, embedded)

    def _read(self, identity: str) -> _Text | None:
        with self.index.database.reading() as source:
            key = _identities(source, identity).get(identity)
            if key is None:
                return None
            whole = rows.text(source, key)
            chunks: Any = source.execute(
                "SELECT id, start, text FROM chunks WHERE document = ? ORDER BY start, id", (key,)
            ).fetchall()
            spans: Any = source.execute(
                'SELECT start, "end" FROM sentences WHERE document = ? ORDER BY start', (key,)
            ).fetchall()
        return _Text(key, whole, chunks, [whole[start:end] for start, end in spans])

    def _store(self, target: Index, identity: str, document: _Text, embedded: _Embedded) -> None:
        """One transaction; nothing where the document was removed while it was embedded."""
        with self.index.database.reading() as source, target.database.writing() as connection:
            if _identities(source, identity).get(identity) != document.key:
                return
            _copy_collections(source, connection)
            copying = Copying(source, connection, window=int(rows.meta(connection, "next_window") or 1))
            collection = source.execute("SELECT collection FROM documents WHERE key = ?", (document.key,)).get
            windows = [
                Window(chunk, start, end, np.ascontiguousarray(row, "<f4").tobytes())
                for chunk, _, text in document.chunks
                for row, (start, end) in zip(embedded[text].rows, embedded[text].spans, strict=True)
            ]
            same = {chunk: chunk for chunk, *_ in document.chunks}
            counts = {"windows": len(windows), "embedded": _count_embedded(document, embedded)}
            copying.document(document.key, counts)
            copying.parts(document.key, document.key, same, _pooled(document.sentences, embedded))
            copying.vectors(windows, same, collection)
            rows.set_meta(connection, "next_window", copying.window)

    def _finish(self, target: Index) -> bool:
        """Put the second file in the place of the first, in one transaction; False: a document came or went before."""
        with self.index.database.turn():
            if self._compare(target)[0]:
                return False
            with self.index.database.reading() as source, target.database.writing() as connection:
                _copy_collections(source, connection)
                _copy_labels(source, connection)
                for counter in ("next_document", "next_window"):
                    held = max(int(rows.meta(one, counter) or 1) for one in (source, connection))
                    rows.set_meta(connection, counter, held)
                rows.set_meta(connection, "epoch", rows.epoch(source) + 1)
            target.database.reclaim()
            target.close()
            self.index.replace(self._path, embedder=self.name, width=self.width)
        discard(self._path)
        return True


def discard(path: Path) -> None:
    """Remove a second file that is not needed any more."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def progress(index: Index, path: Path) -> tuple[int, int]:
    """Documents that the second file at ``path`` holds, and how many the index has."""
    with index.database.reading() as source:
        total = len(_identities(source))
    if not path.exists():
        return 0, total
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            done = connection.execute("SELECT count(*) FROM documents").get
    except apsw.Error:  # it is looked at again when the work goes on
        return 0, total
    return min(done, total), total


def _identities(connection: apsw.Connection, identity: str | None = None) -> dict[str, int]:
    """Ids of documents and their keys, in the order of the keys; of one alone where it is named."""
    found: Any
    if identity is None:
        found = connection.execute("SELECT id, key FROM documents ORDER BY key").fetchall()
    else:
        found = connection.execute("SELECT id, key FROM documents WHERE id = ?", (identity,)).fetchall()
    return dict(found)


def _copy_collections(source: apsw.Connection, target: apsw.Connection) -> None:
    """Collections under their keys, and their readers."""
    held: Any = source.execute("SELECT id, name, sensitivity, next_chunk FROM collections").fetchall()
    target.executemany(
        "INSERT INTO collections (id, name, sensitivity, next_chunk) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
        " SET name = excluded.name, sensitivity = excluded.sensitivity, next_chunk = excluded.next_chunk",
        held,
    )
    readers: Any = source.execute("SELECT collection, kind, number FROM readers").fetchall()
    target.execute("DELETE FROM readers")
    target.executemany("INSERT INTO readers (collection, kind, number) VALUES (?, ?, ?)", readers)


def _copy_labels(source: apsw.Connection, target: apsw.Connection) -> None:
    """Dates and tags, which may have changed since the document was copied."""
    dates: Any = source.execute("SELECT date, key FROM documents").fetchall()
    target.executemany("UPDATE documents SET date = ? WHERE key = ?", dates)
    tags: Any = source.execute("SELECT document, tag FROM tags").fetchall()
    target.execute("DELETE FROM tags")
    target.executemany("INSERT INTO tags (document, tag) VALUES (?, ?)", tags)


def _pooled(texts: Sequence[str], embedded: _Embedded) -> Matrix:
    """(len(texts), width) float32: one vector a sentence."""
    if not texts:
        return np.empty((0, 0), np.float32)
    vectors = {text: pool(embedded[text].rows) for text in set(texts)}
    return np.asarray([vectors[text] for text in texts], np.float32)


def _count_embedded(document: _Text, embedded: _Embedded) -> int:
    """The characters that are no white space and lie in a window."""
    spans = sorted((at + start, at + end) for _, at, text in document.chunks for start, end in embedded[text].spans)
    reached = accumulate((end for _, end in spans), max, initial=0)
    return sum(
        count_visible(document.whole[max(start, before) : end])
        for (start, end), before in zip(spans, reached, strict=False)
    )

"""The knowledge index: documents, chunks, vectors, sentences and terms of one box in one SQLite file.

Stores and finds rows; it neither parses nor embeds, and joins no rankings (:mod:`edge_runtime.knowledge.search` does).
Every method blocks; call it from a thread.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from edge_runtime.errors import NotFoundError, RefusedError, StorageError
from edge_runtime.knowledge import collections, compaction, rows, schema, storing, vector_table
from edge_runtime.knowledge.collections import Collection
from edge_runtime.knowledge.database import Database
from edge_runtime.knowledge.lookup import SETTING, Lookup
from edge_runtime.knowledge.records import IndexCounts, IndexStats, PreparedDocument, VectorBlock
from edge_runtime.knowledge.vocabulary import Rarities
from edge_runtime.knowledge_protocol import Document
from edge_runtime.protocol import Sensitivity

_DOCUMENT = (
    "SELECT d.id, d.name, c.name, d.format, d.sha256, d.characters, d.chunks, d.pages, d.added, d.date,"
    " (SELECT json_group_array(tag ORDER BY tag) FROM tags WHERE document = d.key)"
    " FROM documents AS d JOIN collections AS c ON c.id = d.collection"
)
_COUNTS = "SELECT count(*), coalesce(sum(chunks), 0), coalesce(sum(windows), 0), coalesce(sum(sentences), 0)"


class Index(Lookup):
    """One index file. Safe to use from many threads; one writer at a time."""

    @classmethod
    def open(cls, path: Path, *, embedder: str, width: int = 384) -> Index:
        """Open or create ``path``. ``embedder`` names the model (and its digest) whose vectors it should hold.

        An index with documents of another embedder opens too, and is :attr:`stale`: nothing can be added to it.

        Raises:
            StorageError: damaged, from a newer version, locked or unwritable.
        """
        database = Database(path, width=width)
        try:
            held, numbers = _bind(database, embedder, width)
        except BaseException:
            database.close()
            raise
        return cls(database, width=numbers, embedder=held, wanted=f"{embedder}/{width}")

    def backup(self, target: Path) -> None:
        """A compact, consistent copy of the index at ``target``, which must not exist."""
        self._database.copy(target)

    def replace(self, other: Path, *, embedder: str, width: int) -> None:
        """Hold what the index file ``other`` holds, at once and whole: vectors of ``width`` numbers of ``embedder``.

        The coarse copy goes: it is of the former vectors. Raises StorageError: no room; nothing was changed.
        """
        with self._database.turn():
            self._database.take(other)
            if self.coarse is not None:
                self.coarse.close()
            self.coarse = None
            self.embedder, self._width = embedder, width
            self._rarities = Rarities()

    def set_collection(
        self,
        name: str,
        *,
        sensitivity: Sensitivity | None = None,
        uids: Sequence[int] | None = None,
        gids: Sequence[int] | None = None,
    ) -> Collection:
        """Create the collection or change what is given; no readers at all means: everyone who may ask."""
        with self._changing() as (connection, _):
            collections.change(connection, name, sensitivity=sensitivity, uids=uids, gids=gids)
        found = self.collection(name)
        if found is None:
            raise NotFoundError(f"no collection is named {name}")
        return found

    # ---- documents -------------------------------------------------------------------------------------------------

    def add(self, document: PreparedDocument) -> Document:
        """Store a document with everything derived from it, in place of an older one of the same name and collection.

        One transaction: after a crash either all of it is there or none. The same bytes again change nothing but tags
        and date.
        """
        if self.stale:
            raise RefusedError(
                f"the index holds vectors of {self.embedder}, and the embedder is now another: run edge index reembed, "
                "or choose the former embedder in edge.toml"
            )
        storing.check(document, self._width)
        present = self.same(document.collection, document.name, document.sha256)
        if present is not None:
            return self.label(present.id, tags=document.tags, date=document.date)
        identity = f"doc-{secrets.token_hex(8)}"
        self._prepare("c.name = ? AND d.name = ?", (document.collection, document.name))
        with self._changing() as (connection, change):
            collection = collections.ensure(connection, document.collection)
            older: Any = connection.execute(
                "SELECT key FROM documents WHERE collection = ? AND name = ?", (collection, document.name)
            ).fetchone()
            if older is not None:
                storing.purge(connection, older[0])
                change.dropped = older
            _, change.rows = storing.insert(connection, document, identity, collection)
        if older is not None:
            compaction.settle(self._database)
        return self.document(identity)

    def label(self, document_id: str, *, tags: Iterable[str], date: str | None) -> Document:
        """Give a document these tags and this date (YYYY-MM-DD), and no others. Raises NotFoundError, RequestError."""
        storing.check_date(date)
        present = self.document(document_id)
        if present.date == date and present.tags == sorted(set(tags := list(tags))):
            return present
        with self._changing() as (connection, _):
            key = rows.document_key(connection, document_id)
            storing.label(connection, key, tags)
            connection.execute("UPDATE documents SET date = ? WHERE key = ?", (date, key))
        return self.document(document_id)

    def same(self, collection: str, name: str, sha256: str) -> Document | None:
        """The stored document of this name and collection if it has these very bytes."""
        with self._database.reading() as connection:
            found = _documents(connection, "c.name = ? AND d.name = ? AND d.sha256 = ?", (collection, name, sha256))
        return found[0] if found else None

    def named(self, collection: str, name: str) -> Document | None:
        """The stored document of this name and collection."""
        with self._database.reading() as connection:
            found = _documents(connection, "c.name = ? AND d.name = ?", (collection, name))
        return found[0] if found else None

    def remove(self, document_id: str) -> dict[str, int]:
        """Delete a document and everything derived from it, from the disk too; how many of each were purged."""
        self._prepare("d.id = ?", (document_id,))
        with self._changing() as (connection, change):
            key = rows.document_key(connection, document_id)
            purged = storing.purge(connection, key)
            change.dropped = (key,)
        compaction.settle(self._database)
        return purged

    def documents(self, collection: str | None = None) -> list[Document]:
        """Oldest first; of every collection where none is named."""
        where, values = ("1", ()) if collection is None else ("c.name = ?", (collection,))
        with self._database.reading() as connection:
            return _documents(connection, f"{where} ORDER BY d.key", values)

    def document(self, document_id: str) -> Document:
        """Raises NotFoundError."""
        with self._database.reading() as connection:
            found = _documents(connection, "d.id = ?", (document_id,))
        if not found:
            raise NotFoundError(f"no document has the id {document_id}: edge docs lists them")
        return found[0]

    # ---- the index itself ------------------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        with self._database.reading() as connection:
            row: Any = connection.execute(f"{_COUNTS} FROM documents").fetchone()
            pages = connection.pragma("page_count") * connection.pragma("page_size")
            epoch = rows.epoch(connection)
        documents, chunks, windows, sentences = row
        return IndexStats(documents, chunks, windows, sentences, pages, epoch)

    def report(self) -> IndexCounts:
        with self._database.reading() as connection:
            row: Any = connection.execute(
                f"{_COUNTS}, coalesce(sum(visible), 0), coalesce(sum(embedded), 0) FROM documents"
            ).fetchone()
            documents, chunks, windows, sentences, visible, embedded = row
            return IndexCounts(
                documents=documents,
                chunks=chunks,
                windows=windows,
                sentences=sentences,
                coverage=embedded / visible if visible else 1.0,
                embedder=rows.meta(connection, "embedder") or "",
                file_bytes=self._database.file_bytes,
                free_bytes=compaction.free_bytes(connection, self._width),
                epoch=rows.epoch(connection),
            )

    def needs_compacting(self) -> bool:
        """Whether :meth:`compact` would give back enough to be worth it; cheap."""
        return compaction.is_due(self._database, self._width)

    def compact(self) -> tuple[int, int]:
        """Give back all space that deleted documents took; the file's bytes before and after.

        Documents can be added and found meanwhile, but for the last step, in which the file is written anew and adding
        waits. Raises StorageError: the disk has no room for that copy.
        """
        return compaction.compact(self._database)

    def keep_settings(self, settings: Mapping[str, float]) -> None:
        """Keep small numbers for :meth:`setting`."""
        with self._database.writing() as connection:
            for key, value in settings.items():
                rows.set_meta(connection, SETTING + key, repr(float(value)))

    @contextmanager
    def vectors(self) -> Iterator[tuple[int, Iterator[VectorBlock]]]:
        """One snapshot's epoch, and all of its vectors, some hundred at a time, for as long as the context is held."""
        with self._database.reading() as connection:
            yield rows.epoch(connection), vector_table.owned_blocks(connection)

    def _prepare(self, where: str, values: Sequence[str]) -> None:
        with self._database.reading() as connection:
            doomed = _documents(connection, where, values)
        if doomed:
            compaction.prepare(self._database, doomed[0].characters)

    @contextmanager
    def _changing(self) -> Iterator[tuple[apsw.Connection, _Change]]:
        """A transaction that brings the index to the next epoch, of which the coarse copy hears once it is stored."""
        change = _Change()
        with self._database.turn():
            with self._database.writing() as connection:
                yield connection, change
                epoch = rows.advance(connection)
            if self.coarse is not None:
                self.coarse.append(change.rows, epoch=epoch, dropped=change.dropped)


class _Change:
    """What a transaction does to the vectors."""

    def __init__(self) -> None:
        self.rows: VectorBlock | None = None
        self.dropped: Sequence[int] = ()  # keys of documents


def _documents(connection: apsw.Connection, where: str, values: Sequence[str]) -> list[Document]:
    found: Any = connection.execute(f"{_DOCUMENT} WHERE {where}", tuple(values)).fetchall()
    return [
        Document(**dict(zip(Document.__struct_fields__, (*row, json.loads(tags)), strict=True))) for *row, tags in found
    ]


def _bind(database: Database, embedder: str, width: int) -> tuple[str, int]:
    """Whose vectors the file holds, and how many numbers each has; an empty file is made the given one's."""
    wanted = f"{embedder}/{width}"
    with database.writing() as connection:
        held = rows.meta(connection, "embedder")
        if held == wanted:
            return embedder, width
        if connection.execute("SELECT count(*) FROM documents").get == 0:
            if held is not None:
                connection.execute("DROP TABLE vectors")
                schema.create_vectors(connection, width)
            rows.set_meta(connection, "embedder", wanted)
            return embedder, width
    name, _, numbers = (held or "").rpartition("/")
    if not numbers.isdecimal():
        raise StorageError(
            f"the index {database.path} does not say whose vectors it holds: restore a backup (edge restore), or move "
            "the file away and add the documents again"
        )
    return name, int(numbers)

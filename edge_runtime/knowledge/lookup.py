"""What a search reads of the index: rows of one snapshot, always of one scope. Joins no rankings.

Every method blocks; call it from a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from edge_runtime.errors import EngineError
from edge_runtime.knowledge import collections, filters, rows, schema, vector_table
from edge_runtime.knowledge.coarse import Coarse
from edge_runtime.knowledge.collections import Collection
from edge_runtime.knowledge.database import Database
from edge_runtime.knowledge.filters import Scope
from edge_runtime.knowledge.records import ChunkRow, Known, Matrix, Sentences
from edge_runtime.knowledge.vocabulary import Rarities
from edge_runtime.knowledge_protocol import Filter

SETTING = "setting "  # before the names of kept numbers
_MATCHING = (
    "SELECT rowid, -bm25(chunk_terms) AS score FROM chunk_terms WHERE chunk_terms MATCH ? AND rowid >= ? AND rowid < ?"
)
# The plus keeps SQLite from asking FTS5 for one rowid after the other.
_AMONG = " AND +rowid IN (SELECT id FROM chunks WHERE document IN (SELECT value FROM json_each(?)))"


class Lookup:
    """The reading half of an index. Safe to use from many threads."""

    def __init__(self, database: Database, *, width: int, embedder: str = "", wanted: str | None = None) -> None:
        """``embedder`` names whose vectors of ``width`` numbers the file holds; ``wanted`` is EMBEDDER/WIDTH as they
        should be (None: as they are)."""
        self.coarse: Coarse | None = None  # scanned instead of the table where it is at the snapshot's epoch
        self.embedder = embedder
        self._wanted = f"{embedder}/{width}" if wanted is None else wanted
        self._database = database
        self._width = width
        self._rarities = Rarities()

    @property
    def database(self) -> Database:
        return self._database

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self._width

    @property
    def stale(self) -> bool:
        """Whether the vectors are another embedder's than those that are wanted now."""
        return f"{self.embedder}/{self._width}" != self._wanted

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """Everything that this thread reads inside is of one moment; its epoch."""
        with self._database.reading() as connection:
            yield rows.epoch(connection)

    def collections(self) -> list[Collection]:
        with self._database.reading() as connection:
            return collections.every(connection)

    def collection(self, name: str) -> Collection | None:
        with self._database.reading() as connection:
            return collections.find(connection, name)

    def scope(self, collection: str, wanted: Filter | None = None) -> Scope | None:
        """What a search of a collection may see; None where there is no such collection.

        It holds for the snapshot it was made in (:meth:`snapshot`). Later, documents that were removed are missing,
        and new ones that pass the filter are too.
        """
        with self._database.reading() as connection:
            return filters.resolve(connection, collection, wanted)

    def nearest(self, scope: Scope, vector: Matrix, windows: int) -> dict[int, float]:
        """Cosine of the nearest ``windows`` in the scope, best of each chunk, best first: chunk id -> cosine.

        ``vector`` (width,) has unit length.

        Raises:
            EngineError: it is another embedder's: the index was embedded anew since the query was.
        """
        self._check(vector)
        if windows <= 0 or (scope.documents is not None and not scope.documents):
            return {}
        with self._database.reading() as connection:
            if self.coarse is not None:
                found = self.coarse.nearest(
                    vector,
                    windows,
                    epoch=rows.epoch(connection),
                    collection=scope.collection,
                    documents=scope.documents,
                )
                if found is not None:
                    return found
            if scope.documents is None:
                return vector_table.nearest(connection, scope.collection, vector, windows)
            return vector_table.nearest_of(connection, scope.documents, vector, windows)

    def scanned(self) -> bool:
        """Whether :meth:`nearest` would use the coarse copy."""
        with self._database.reading() as connection:
            return self.coarse is not None and self.coarse.ready(rows.epoch(connection))

    def matching(self, scope: Scope, expression: str, limit: int) -> dict[int, float]:
        """BM25 of the chunks in the scope that match an FTS5 expression, best (largest) first: chunk id -> score."""
        low, high = scope.collection << schema.SHIFT, (scope.collection + 1) << schema.SHIFT
        among = ""
        values: tuple[str, ...] = ()
        if scope.documents is not None:
            if not scope.documents:
                return {}
            among = _AMONG
            values = (filters.as_json(scope.documents),)
        with self._database.reading() as connection:
            found: Any = connection.execute(
                f"{_MATCHING}{among} ORDER BY score DESC LIMIT ?",
                (expression, low, high, *values, limit),
            ).fetchall()
        return dict(found)

    def _check(self, vector: Matrix) -> None:
        if len(vector) != self._width:
            raise EngineError("the index was embedded anew while this was asked; ask again")

    def cosines(self, chunks: Sequence[int], vector: Matrix) -> dict[int, float]:
        """The best cosine over each chunk's windows: exact, for chunks found in another way. Raises as
        :meth:`nearest`."""
        self._check(vector)
        if not chunks:
            return {}
        with self._database.reading() as connection:
            return rows.best_cosines(connection, chunks, vector)

    def chunks(self, ids: Sequence[int]) -> list[ChunkRow]:
        """Rows in the order of ``ids``; those removed meanwhile are left out."""
        with self._database.reading() as connection:
            return rows.chunks(connection, ids)

    def sentences(self, chunks: Sequence[int]) -> list[Sentences]:
        """For each chunk, the sentences that lie in it, also in part, in order."""
        with self._database.reading() as connection:
            return [rows.sentences(connection, chunk, self._width) for chunk in chunks]

    def stems(self, text: str) -> list[str]:
        """The terms of ``text`` as the full-text index stores them (folded, without accents, Porter-stemmed)."""
        tokenizer = self._database.reader.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
        found = tokenizer(text.encode("utf-8", "replace"), apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False)
        return [str(token[0]) for token in found]

    def rarity(self, stems: Sequence[str]) -> tuple[int, dict[str, int]]:
        """The number of chunks, and for each stem the number of chunks that hold it: exact up to about a thousand, by
        sample above."""
        with self._database.reading() as connection:
            return self._rarities.of(connection, rows.epoch(connection), stems)

    def known(self, collection: str, name: str) -> Known:
        """What the stored document of this name has embedded already."""
        with self._database.reading() as connection:
            key = collections.key(connection, collection)
            return Known() if key is None else rows.known(connection, key, name)

    def setting(self, key: str, default: float) -> float:
        """A number that :meth:`Index.keep_settings` kept."""
        with self._database.reading() as connection:
            held = rows.meta(connection, SETTING + key)
        return default if held is None else float(held)

    def settings(self, prefix: str = "") -> dict[str, float]:
        """All kept numbers whose names begin so, by their whole names."""
        begin = SETTING + prefix
        with self._database.reading() as connection:
            found: Any = connection.execute(
                "SELECT substr(key, ?), value FROM meta WHERE substr(key, 1, ?) = ?",
                (len(SETTING) + 1, len(begin), begin),
            ).fetchall()
        return {key: float(value) for key, value in found}

    def text(self, document_id: str, start: int = 0, end: int | None = None) -> str:
        """Characters ``start`` to ``end`` of a document's text, cut to what there is. Raises NotFoundError."""
        with self._database.reading() as connection:
            return rows.text(connection, rows.document_key(connection, document_id), max(start, 0), end)

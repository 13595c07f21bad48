"""The knowledge index: documents, chunks, vectors, sentences and terms of one box in one SQLite file.

Stores and finds rows; it neither parses nor embeds, and joins no rankings (:mod:`edge_runtime.knowledge.search` does).
Every method blocks; call it from a thread.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from edge_runtime.errors import NotFoundError, RequestError, StorageError
from edge_runtime.knowledge import collections, schema
from edge_runtime.knowledge.collections import Collection
from edge_runtime.knowledge.database import Database
from edge_runtime.knowledge.documents import Span
from edge_runtime.knowledge.records import ChunkRow, IndexStats, Matrix, PreparedDocument, Sentences
from edge_runtime.knowledge_protocol import Document
from edge_runtime.protocol import Sensitivity

MAX_NEAREST = 4096  # vec0 refuses a larger k
PART_CHARS = 32_768
_DOCUMENT = (
    "SELECT d.id, d.name, c.name, d.format, d.sha256, d.characters,"
    " (SELECT count(*) FROM chunks WHERE document = d.key), d.pages, d.added"
    " FROM documents AS d JOIN collections AS c ON c.id = d.collection"
)


class Index:
    """One index file. Safe to use from many threads; one writer at a time."""

    def __init__(self, database: Database, *, width: int) -> None:
        self._database = database
        self._width = width

    @classmethod
    def open(cls, path: Path, *, embedder: str, width: int = 384) -> Index:
        """Open or create ``path``. ``embedder`` names the model (and its digest) whose vectors it holds.

        Raises:
            StorageError: damaged, from a newer version, locked, unwritable, or made with another embedder.
        """
        database = Database(path, width=width)
        try:
            _bind(database, embedder, width)
        except BaseException:
            database.close()
            raise
        return cls(database, width=width)

    def close(self) -> None:
        self._database.close()

    def backup(self, target: Path) -> None:
        """A compact, consistent copy of the index at ``target``, which must not exist."""
        self._database.copy(target)

    # ---- collections -----------------------------------------------------------------------------------------------

    def collections(self) -> list[Collection]:
        with self._database.reading() as connection:
            return collections.every(connection)

    def collection(self, name: str) -> Collection | None:
        with self._database.reading() as connection:
            return collections.find(connection, name)

    def set_collection(
        self,
        name: str,
        *,
        sensitivity: Sensitivity | None = None,
        uids: Sequence[int] | None = None,
        gids: Sequence[int] | None = None,
    ) -> Collection:
        """Create the collection or change what is given; no readers at all means: everyone who may ask."""
        with self._database.writing() as connection:
            collections.change(connection, name, sensitivity=sensitivity, uids=uids, gids=gids)
            _advance(connection)
        found = self.collection(name)
        if found is None:
            raise NotFoundError(f"no collection is named {name}")
        return found

    # ---- documents -------------------------------------------------------------------------------------------------

    def add(self, document: PreparedDocument) -> Document:
        """Store a document with everything derived from it, in place of an older one of the same name and collection.

        One transaction: after a crash either all of it is there or none. The same bytes again change nothing.
        """
        if len(document.windows) != len(document.chunks) or len(document.sentence_vectors) != len(document.sentences):
            raise RequestError(f"{document.name}: vectors and spans do not match; this is a fault of the caller")
        present = self.same(document.collection, document.name, document.sha256)
        if present is not None:
            return present
        identity = f"doc-{secrets.token_hex(8)}"
        with self._database.writing() as connection:
            collection = collections.ensure(connection, document.collection)
            older: Any = connection.execute(
                "SELECT key FROM documents WHERE collection = ? AND name = ?", (collection, document.name)
            ).fetchone()
            if older is not None:
                _purge(connection, older[0])
            key = _insert_document(connection, document, identity, collection)
            _insert_chunks(connection, document, key, collection)
            _advance(connection)
        if older is not None:
            self._database.reclaim()
        return self.document(identity)

    def same(self, collection: str, name: str, sha256: str) -> Document | None:
        """The stored document of this name and collection if it has these very bytes."""
        with self._database.reading() as connection:
            row: Any = connection.execute(
                f"{_DOCUMENT} WHERE c.name = ? AND d.name = ? AND d.sha256 = ?", (collection, name, sha256)
            ).fetchone()
        return None if row is None else Document(**dict(zip(Document.__struct_fields__, row, strict=True)))

    def remove(self, document_id: str) -> dict[str, int]:
        """Delete a document and everything derived from it, from the disk too; how many of each were purged."""
        with self._database.writing() as connection:
            purged = _purge(connection, _key(connection, document_id))
            _advance(connection)
        self._database.reclaim()
        return purged

    def documents(self, collection: str | None = None) -> list[Document]:
        """Oldest first; of every collection where none is named."""
        where, values = ("", ()) if collection is None else (" WHERE c.name = ?", (collection,))
        with self._database.reading() as connection:
            rows: Any = connection.execute(f"{_DOCUMENT}{where} ORDER BY d.key", values).fetchall()
        return [Document(**dict(zip(Document.__struct_fields__, row, strict=True))) for row in rows]

    def document(self, document_id: str) -> Document:
        """Raises NotFoundError."""
        with self._database.reading() as connection:
            row: Any = connection.execute(f"{_DOCUMENT} WHERE d.id = ?", (document_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"no document has the id {document_id}: edge docs lists them")
        return Document(**dict(zip(Document.__struct_fields__, row, strict=True)))

    def text(self, document_id: str, start: int = 0, end: int | None = None) -> str:
        """Characters ``start`` to ``end`` of a document's text, cut to what there is. Raises NotFoundError."""
        with self._database.reading() as connection:
            return _text(connection, _key(connection, document_id), max(start, 0), end)

    def stats(self) -> IndexStats:
        with self._database.reading() as connection:
            counts: Any = connection.execute(
                "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM chunks),"
                " (SELECT count(*) FROM windows), (SELECT count(*) FROM sentences)"
            ).fetchone()
            pages = connection.pragma("page_count") * connection.pragma("page_size")
            epoch = int(_meta(connection, "epoch") or 0)
        documents, chunks, windows, sentences = counts
        return IndexStats(documents, chunks, windows, sentences, pages, epoch)

    # ---- rows for search -------------------------------------------------------------------------------------------

    def nearest(self, collection: str, vector: Matrix, windows: int) -> dict[int, float]:
        """Cosine of the nearest ``windows`` of a collection, best of each chunk, best first: chunk id -> cosine."""
        with self._database.reading() as connection:
            key = collections.key(connection, collection)
            if key is None:
                return {}
            rows: Any = connection.execute(
                "SELECT chunk, distance FROM vectors WHERE embedding MATCH ? AND k = ? AND collection = ?",
                (vector.astype("<f4").tobytes(), min(windows, MAX_NEAREST), key),
            ).fetchall()
        best: dict[int, float] = {}
        for chunk, distance in rows:
            best.setdefault(chunk, 1.0 - distance * distance / 2.0)  # rows come nearest first; |a-b|^2 = 2 - 2 cos
        return best

    def cosines(self, chunks: Sequence[int], vector: Matrix) -> dict[int, float]:
        """The best cosine over each chunk's windows: exact, for chunks found in another way."""
        if not chunks:
            return {}
        with self._database.reading() as connection:
            rows: Any = connection.execute(
                "SELECT w.chunk, v.embedding FROM windows AS w CROSS JOIN vectors AS v ON v.window = w.id"
                " WHERE w.chunk IN (SELECT value FROM json_each(?))",
                (json.dumps(list(chunks)),),
            ).fetchall()
        best: dict[int, float] = {}
        for chunk, blob in rows:
            cosine = float(np.frombuffer(blob, "<f4") @ vector)
            best[chunk] = max(cosine, best.get(chunk, -1.0))
        return best

    def matching(self, collection: str, expression: str, limit: int) -> dict[int, float]:
        """BM25 of the chunks of a collection that match an FTS5 expression, best (largest) first: chunk id -> score."""
        with self._database.reading() as connection:
            key = collections.key(connection, collection)
            if key is None:
                return {}
            low, high = key << schema.SHIFT, (key + 1) << schema.SHIFT
            rows: Any = connection.execute(
                "SELECT rowid, -bm25(chunk_terms) AS score FROM chunk_terms"
                " WHERE chunk_terms MATCH ? AND rowid >= ? AND rowid < ? ORDER BY bm25(chunk_terms) LIMIT ?",
                (expression, low, high, limit),
            ).fetchall()
        return dict(rows)

    def stems(self, text: str) -> list[str]:
        """The terms of ``text`` as the full-text index stores them (folded, without accents, Porter-stemmed)."""
        tokenizer = self._database.reader.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
        found = tokenizer(text.encode("utf-8", "replace"), apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False)
        return [str(token[0]) for token in found]

    def rarity(self, stems: list[str]) -> tuple[int, dict[str, int]]:
        """The number of chunks, and for each stem the number of chunks that hold it."""
        with self._database.reading() as connection:
            total = connection.execute("SELECT count(*) FROM chunks").get
            rows: Any = connection.execute(
                "SELECT term, doc FROM json_each(?) CROSS JOIN chunk_vocabulary ON term = value", (json.dumps(stems),)
            ).fetchall()
        return total, dict(rows)

    def chunks(self, ids: Sequence[int]) -> list[ChunkRow]:
        """Rows in the order of ``ids``; those removed meanwhile are left out."""
        with self._database.reading() as connection:
            rows: Any = connection.execute(
                'SELECT k.id, d.id, d.name, k.start, k."end", k.heading, k.page, k.tokens, k.text'
                " FROM chunks AS k JOIN documents AS d ON d.key = k.document"
                " WHERE k.id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).fetchall()
        found = {
            key: ChunkRow(
                key, document_id, name, start, end, tuple(filter(None, heading.split("\n"))), page, tokens, text
            )
            for key, document_id, name, start, end, heading, page, tokens, text in rows
        }
        return [found[key] for key in ids if key in found]

    def sentences(self, chunks: Sequence[int]) -> list[Sentences]:
        """For each chunk, the sentences that lie in it, also in part, in order."""
        with self._database.reading() as connection:
            return [_sentences(connection, chunk, self._width) for chunk in chunks]


def _bind(database: Database, embedder: str, width: int) -> None:
    """Note whose vectors the file holds, or refuse to mix two models' vectors."""
    wanted = f"{embedder}/{width}"
    with database.writing() as connection:
        held = _meta(connection, "embedder")
        if held == wanted:
            return
        empty = connection.execute("SELECT count(*) FROM documents").get == 0
        if held is not None and (not empty or held.rpartition("/")[2] != str(width)):
            raise StorageError(
                f"the index {database.path} holds vectors of {held}, and the embedder is now {wanted}: choose the "
                "former embedder in edge.toml, or move the file away and add the documents again"
            )
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (wanted,))


def _meta(connection: apsw.Connection, key: str) -> str | None:
    row: Any = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _advance(connection: apsw.Connection) -> None:
    epoch = int(_meta(connection, "epoch") or 0) + 1
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(epoch),))


def _key(connection: apsw.Connection, document_id: str) -> int:
    row: Any = connection.execute("SELECT key FROM documents WHERE id = ?", (document_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"no document has the id {document_id}: edge docs lists them")
    return int(row[0])


def _insert_document(connection: apsw.Connection, document: PreparedDocument, identity: str, collection: int) -> int:
    connection.execute(
        "INSERT INTO documents (id, collection, name, format, title, sha256, characters, pages, added)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            identity,
            collection,
            document.name,
            document.format,
            document.title,
            document.sha256,
            len(document.text),
            document.pages,
            time.time(),
        ),
    )
    key = connection.last_insert_rowid()
    parts = range(0, len(document.text), PART_CHARS)
    connection.executemany(
        "INSERT INTO texts VALUES (?, ?, ?)", [(key, at, document.text[at : at + PART_CHARS]) for at in parts]
    )
    half = np.ascontiguousarray(document.sentence_vectors, "<f2")
    connection.executemany(
        "INSERT INTO sentences VALUES (?, ?, ?, ?)",
        [(key, span.start, span.end, half[row].tobytes()) for row, span in enumerate(document.sentences)],
    )
    return key


def _insert_chunks(connection: apsw.Connection, document: PreparedDocument, key: int, collection: int) -> None:
    number = connection.execute("SELECT next_chunk FROM collections WHERE id = ?", (collection,)).get
    first = (collection << schema.SHIFT) + number
    for chunk_id, (chunk, rows) in enumerate(zip(document.chunks, document.windows, strict=True), first):
        connection.execute(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                chunk_id,
                key,
                chunk.start,
                chunk.end,
                "\n".join(" ".join(part.split()) for part in chunk.heading),
                chunk.page,
                chunk.tokens,
                document.text[chunk.start : chunk.end],
            ),
        )
        for row in rows:
            connection.execute("INSERT INTO windows (chunk) VALUES (?)", (chunk_id,))
            connection.execute(
                "INSERT INTO vectors (window, collection, chunk, embedding) VALUES (?, ?, ?, ?)",
                (connection.last_insert_rowid(), collection, chunk_id, row.astype("<f4").tobytes()),
            )
    connection.execute(
        "UPDATE collections SET next_chunk = ? WHERE id = ?", (number + len(document.chunks), collection)
    )


def _purge(connection: apsw.Connection, key: int) -> dict[str, int]:
    """Delete a document's rows, derived ones first; counts by kind."""

    def delete(statement: str) -> int:
        connection.execute(statement, (key,))
        return connection.changes()

    windows = "SELECT w.id FROM windows AS w JOIN chunks AS k ON k.id = w.chunk WHERE k.document = ?"
    vectors = [row[0] for row in connection.execute(windows, (key,)).fetchall()]
    connection.executemany("DELETE FROM vectors WHERE window = ?", [(row,) for row in vectors])
    delete("DELETE FROM windows WHERE chunk IN (SELECT id FROM chunks WHERE document = ?)")
    sentences = delete("DELETE FROM sentences WHERE document = ?")
    chunks = delete("DELETE FROM chunks WHERE document = ?")
    delete("DELETE FROM texts WHERE document = ?")
    delete("DELETE FROM documents WHERE key = ?")
    return {"chunks": chunks, "vectors": len(vectors), "sentences": sentences}


def _text(connection: apsw.Connection, key: int, start: int, end: int | None) -> str:
    last = 2**62 if end is None else end
    rows: Any = connection.execute(
        "SELECT start, text FROM texts WHERE document = ? AND start > ? AND start < ? ORDER BY start",
        (key, start - PART_CHARS, last),
    ).fetchall()
    if not rows:
        return ""
    base = rows[0][0]
    return "".join(row[1] for row in rows)[start - base : max(last - base, 0)]


def _sentences(connection: apsw.Connection, chunk: int, width: int) -> Sentences:
    row: Any = connection.execute('SELECT document, start, "end", text FROM chunks WHERE id = ?', (chunk,)).fetchone()
    if row is None:
        return Sentences(chunk, [], [], np.empty((0, width), np.float32))
    key, first, last, text = row
    rows: Any = connection.execute(
        # A sentence may begin before its chunk, by its greatest length at most.
        'SELECT start, "end", vector FROM sentences WHERE document = ? AND start > ? AND start < ? AND "end" > ?'
        " ORDER BY start",
        (key, first - 2000, last, first),
    ).fetchall()
    spans = [Span(start, end) for start, end, _ in rows]
    texts = [
        text[span.start - first : span.end - first]
        if first <= span.start and span.end <= last
        else _text(connection, key, span.start, span.end)
        for span in spans
    ]
    vectors = np.frombuffer(b"".join(blob for _, _, blob in rows), "<f2").astype(np.float32).reshape(len(rows), -1)
    return Sentences(chunk, spans, texts, vectors if rows else np.empty((0, width), np.float32))

"""Rows of the index as values: texts, chunks, sentences, and what a document has embedded; all of one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import numpy as np

from edge_runtime.errors import NotFoundError
from edge_runtime.knowledge.digests import text_digest
from edge_runtime.knowledge.documents import Span
from edge_runtime.knowledge.filters import as_json
from edge_runtime.knowledge.records import ChunkRow, EmbeddedChunk, Known, Matrix, Sentences
from edge_runtime.knowledge.vector_table import blocks_of

PART_CHARS = 32_768
_LONGEST_SENTENCE = 2000  # characters: it may begin before its chunk, by so much at most


def meta(connection: apsw.Connection, key: str) -> str | None:
    row: Any = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: apsw.Connection, key: str, value: float | str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))


def epoch(connection: apsw.Connection) -> int:
    return int(meta(connection, "epoch") or 0)


def advance(connection: apsw.Connection) -> int:
    """The new epoch."""
    after = epoch(connection) + 1
    set_meta(connection, "epoch", after)
    return after


def document_key(connection: apsw.Connection, document_id: str) -> int:
    """Raises NotFoundError."""
    row: Any = connection.execute("SELECT key FROM documents WHERE id = ?", (document_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"no document has the id {document_id}: edge docs lists them")
    return int(row[0])


def text(connection: apsw.Connection, document: int, start: int = 0, end: int | None = None) -> str:
    """Characters ``start`` to ``end`` of a document, by its key."""
    last = 2**62 if end is None else end
    rows: Any = connection.execute(
        "SELECT start, text FROM texts WHERE document = ? AND start > ? AND start < ? ORDER BY start",
        (document, start - PART_CHARS, last),
    ).fetchall()
    if not rows:
        return ""
    base = rows[0][0]
    return "".join(row[1] for row in rows)[start - base : max(last - base, 0)]


def chunks(connection: apsw.Connection, ids: Sequence[int]) -> list[ChunkRow]:
    """In the order of ``ids``, without those that are not there."""
    rows: Any = connection.execute(
        'SELECT k.id, d.id, d.name, k.start, k."end", k.heading, k.page, k.tokens, k.text'
        " FROM chunks AS k JOIN documents AS d ON d.key = k.document"
        " WHERE k.id IN (SELECT value FROM json_each(?))",
        (as_json(ids),),
    ).fetchall()
    found = {
        key: ChunkRow(key, document_id, name, start, end, tuple(filter(None, heading.split("\n"))), page, tokens, body)
        for key, document_id, name, start, end, heading, page, tokens, body in rows
    }
    return [found[key] for key in ids if key in found]


def sentences(connection: apsw.Connection, chunk: int, width: int) -> Sentences:
    """The sentences that lie in a chunk, also in part, in order."""
    row: Any = connection.execute('SELECT document, start, "end", text FROM chunks WHERE id = ?', (chunk,)).fetchone()
    if row is None:
        return Sentences(chunk, [], [], np.empty((0, width), np.float32))
    key, first, last, body = row
    rows: Any = connection.execute(
        'SELECT start, "end", vector FROM sentences WHERE document = ? AND start > ? AND start < ? AND "end" > ?'
        " ORDER BY start",
        (key, first - _LONGEST_SENTENCE, last, first),
    ).fetchall()
    spans = [Span(start, end) for start, end, _ in rows]
    texts = [
        body[span.start - first : span.end - first]
        if first <= span.start and span.end <= last
        else text(connection, key, span.start, span.end)
        for span in spans
    ]
    vectors = np.frombuffer(b"".join(blob for _, _, blob in rows), "<f2").astype(np.float32).reshape(len(rows), -1)
    return Sentences(chunk, spans, texts, vectors if rows else np.empty((0, width), np.float32))


def best_cosines(connection: apsw.Connection, ids: Sequence[int], vector: Matrix) -> dict[int, float]:
    """The best cosine over each chunk's windows."""
    rows: Any = connection.execute(
        "SELECT w.chunk, v.embedding FROM windows AS w CROSS JOIN vectors AS v ON v.window = w.id"
        " WHERE w.chunk IN (SELECT value FROM json_each(?))",
        (as_json(ids),),
    ).fetchall()
    if not rows:
        return {}
    matrix = np.frombuffer(b"".join(blob for _, blob in rows), "<f4").reshape(len(rows), -1)
    best: dict[int, float] = {}
    for (chunk, _), cosine in zip(rows, (matrix @ np.asarray(vector, np.float32)).tolist(), strict=True):
        best[chunk] = max(cosine, best.get(chunk, -1.0))
    return best


def known(connection: apsw.Connection, collection: int, name: str) -> Known:
    """What the document of this name has embedded; windows whose stretch was not noted are left out."""
    row: Any = connection.execute(
        "SELECT key FROM documents WHERE collection = ? AND name = ?", (collection, name)
    ).fetchone()
    if row is None:
        return Known()
    held: Any = connection.execute(
        'SELECT w.id, w.chunk, k.digest, w.start, w."end" FROM chunks AS k CROSS JOIN windows AS w ON w.chunk = k.id'
        " WHERE k.document = ? ORDER BY w.id",
        (row[0],),
    ).fetchall()
    vector_of = {
        window: vector
        for windows, vectors in blocks_of(connection, [window for window, *_ in held])
        for window, vector in zip(windows.tolist(), vectors, strict=True)
    }
    by_chunk: dict[int, list[Any]] = {}
    for window, chunk, digest, start, end in held:
        by_chunk.setdefault(chunk, []).append((window, digest, start, end))
    embedded = {
        windows[0][1]: EmbeddedChunk(
            np.stack([vector_of[window] for window, *_ in windows]), [(start, end) for _, _, start, end in windows]
        )
        for windows in by_chunk.values()
        if all(start is not None for _, _, start, _ in windows)
    }
    spans: Any = connection.execute(
        'SELECT start, "end", vector FROM sentences WHERE document = ? ORDER BY start', (row[0],)
    ).fetchall()
    body = text(connection, row[0]) if spans else ""
    return Known(embedded, {text_digest(body[start:end]): np.frombuffer(blob, "<f2") for start, end, blob in spans})

"""Writes a document's rows, and deletes them again: inside a transaction that whoever calls has begun."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from itertools import accumulate, chain
from typing import Any

import apsw
import numpy as np

from edge_runtime.errors import RequestError
from edge_runtime.knowledge import rows, vector_table
from edge_runtime.knowledge.digests import count_visible, heading_path, stored_digest
from edge_runtime.knowledge.records import PreparedDocument, VectorBlock
from edge_runtime.knowledge.schema import SHIFT

TERMS_REMOVED = "terms_removed"  # characters that were deleted since the full-text index was last merged to one part
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def check(document: PreparedDocument, width: int) -> None:
    """Raises RequestError: what was derived from the document does not fit together."""
    chunks = len(document.chunks)
    fits = (
        len(document.windows) == chunks
        and len(document.sentence_vectors) == len(document.sentences)
        and len(document.digests) in {0, chunks}
        and len(document.window_spans) in {0, chunks}
        and all(matrix.shape[1:] == (width,) for matrix in document.windows)
        and all(
            len(spans) == len(matrix) for spans, matrix in zip(document.window_spans, document.windows, strict=False)
        )
    )
    if not fits:
        raise RequestError(f"{document.name}: vectors and spans do not match; this is a fault of the caller")
    check_date(document.date)


def check_date(date: str | None) -> None:
    """Raises RequestError."""
    if date is not None and not _DATE.fullmatch(date):
        raise RequestError(f"{date[:40]} is no day: write it as YYYY-MM-DD", param="date")


def insert(
    connection: apsw.Connection, document: PreparedDocument, identity: str, collection: int
) -> tuple[int, VectorBlock]:
    """The document's key, and its vectors as they were stored."""
    key = _take(connection, "next_document", 1)
    windows = sum(map(len, document.windows))
    connection.execute(
        "INSERT INTO documents (key, id, collection, name, format, title, sha256, characters, pages, added, date,"
        " chunks, windows, sentences, visible, embedded) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            identity,
            collection,
            document.name,
            document.format,
            document.title,
            document.sha256,
            len(document.text),
            document.pages,
            time.time(),
            document.date,
            len(document.chunks),
            windows,
            len(document.sentences),
            count_visible(document.text),
            count_embedded(document),
        ),
    )
    label(connection, key, document.tags)
    insert_text(connection, key, document.text)
    _insert_sentences(connection, key, document)
    return key, _insert_chunks(connection, document, key, collection)


def label(connection: apsw.Connection, key: int, tags: Iterable[str]) -> None:
    """Give the document these tags and no others."""
    connection.execute("DELETE FROM tags WHERE document = ?", (key,))
    connection.executemany("INSERT INTO tags VALUES (?, ?)", [(key, tag) for tag in dict.fromkeys(tags)])


def insert_text(connection: apsw.Connection, key: int, text: str) -> None:
    parts = range(0, len(text), rows.PART_CHARS)
    connection.executemany(
        "INSERT INTO texts VALUES (?, ?, ?)", ((key, at, text[at : at + rows.PART_CHARS]) for at in parts)
    )


def _insert_sentences(connection: apsw.Connection, key: int, document: PreparedDocument) -> None:
    if not document.sentences:
        return
    half = np.ascontiguousarray(document.sentence_vectors, "<f2")
    size, whole = half.shape[1] * 2, half.tobytes()
    connection.executemany(
        "INSERT INTO sentences VALUES (?, ?, ?, ?)",
        ((key, span.start, span.end, whole[at * size : (at + 1) * size]) for at, span in enumerate(document.sentences)),
    )


def _insert_chunks(connection: apsw.Connection, document: PreparedDocument, key: int, collection: int) -> VectorBlock:
    first = connection.execute("SELECT next_chunk FROM collections WHERE id = ?", (collection,)).get
    connection.execute("UPDATE collections SET next_chunk = ? WHERE id = ?", (first + len(document.chunks), collection))
    ids = range((collection << SHIFT) + first, (collection << SHIFT) + first + len(document.chunks))
    paths = [heading_path(chunk.heading) for chunk in document.chunks]
    bodies = [document.text[chunk.start : chunk.end] for chunk in document.chunks]
    digests = document.digests or list(map(stored_digest, paths, bodies))
    connection.executemany(
        'INSERT INTO chunks (id, document, start, "end", heading, page, tokens, text, digest)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (chunk_id, key, chunk.start, chunk.end, path, chunk.page, chunk.tokens, body, digest)
            for chunk_id, chunk, path, body, digest in zip(ids, document.chunks, paths, bodies, digests, strict=True)
        ),
    )
    counts = [len(matrix) for matrix in document.windows]
    total = sum(counts)
    begin = _take(connection, "next_window", total)
    windows = np.arange(begin, begin + total, dtype=np.int64)
    chunks = np.repeat(np.fromiter(ids, np.int64, len(ids)), counts)
    spans = chain.from_iterable(document.window_spans) if document.window_spans else ((None, None),) * total
    connection.executemany(
        'INSERT INTO windows (id, chunk, start, "end") VALUES (?, ?, ?, ?)',
        (
            (window, chunk, start, end)
            for window, chunk, (start, end) in zip(windows.tolist(), chunks.tolist(), spans, strict=True)
        ),
    )
    matrix = np.concatenate(document.windows).astype(np.float32, copy=False) if total else np.empty((0, 1), np.float32)
    vector_table.insert(connection, collection, windows.tolist(), chunks.tolist(), matrix)
    return VectorBlock(windows, chunks, np.full(total, key), np.full(total, collection), matrix)


def count_embedded(document: PreparedDocument) -> int:
    """The visible characters that lie in a window."""
    if not document.window_spans:
        return 0
    spans = sorted(
        (chunk.start + start, chunk.start + end)
        for chunk, windows in zip(document.chunks, document.window_spans, strict=True)
        for start, end in windows
    )
    reached = accumulate((end for _, end in spans), max, initial=0)
    return sum(
        count_visible(document.text[max(start, before) : end])
        for (start, end), before in zip(spans, reached, strict=False)
    )


def purge(connection: apsw.Connection, key: int) -> dict[str, int]:
    """Delete a document's rows, derived ones first; counts by kind."""

    def delete(statement: str) -> int:
        connection.execute(statement, (key,))
        return connection.changes()

    windows: Any = connection.execute(
        "SELECT id FROM windows WHERE chunk IN (SELECT id FROM chunks WHERE document = ?)", (key,)
    ).fetchall()
    vector_table.delete(connection, (row[0] for row in windows))
    removed = connection.execute("SELECT coalesce(sum(length(text)), 0) FROM chunks WHERE document = ?", (key,)).get
    rows.set_meta(connection, TERMS_REMOVED, int(rows.meta(connection, TERMS_REMOVED) or 0) + removed)
    delete("DELETE FROM windows WHERE chunk IN (SELECT id FROM chunks WHERE document = ?)")
    sentences = delete("DELETE FROM sentences WHERE document = ?")
    chunks = delete("DELETE FROM chunks WHERE document = ?")
    delete("DELETE FROM texts WHERE document = ?")
    delete("DELETE FROM tags WHERE document = ?")
    delete("DELETE FROM documents WHERE key = ?")
    return {"chunks": chunks, "vectors": len(windows), "sentences": sentences}


def _take(connection: apsw.Connection, counter: str, count: int) -> int:
    """The first of ``count`` numbers that were never used."""
    first = int(rows.meta(connection, counter) or 1)
    rows.set_meta(connection, counter, first + count)
    return first

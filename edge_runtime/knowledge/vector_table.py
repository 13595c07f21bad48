"""The vec0 table of every window's vector: rows in bulk, exact search in any part of it, and slots given back.

sqlite-vec 0.1.9 keeps vectors in blocks of ``SLOTS``, fills only a collection's newest block, and frees a block that is
wholly empty. What it has no call for is read here from its shadow tables; only vec0 itself writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.filters import as_json
from edge_runtime.knowledge.records import Matrix, VectorBlock
from edge_runtime.knowledge.schema import SLOTS

MAX_NEAREST = 4096  # vec0 refuses a larger k

Numbers = NDArray[np.int64]
Block = tuple[Numbers, Matrix]  # window ids (n,) and their vectors (n, width)


def insert(
    connection: apsw.Connection, collection: int, windows: Iterable[int], chunks: Iterable[int], rows: Matrix
) -> None:
    size = rows.shape[1] * 4
    whole = np.ascontiguousarray(rows, "<f4").tobytes()
    connection.executemany(
        "INSERT INTO vectors (window, collection, chunk, embedding) VALUES (?, ?, ?, ?)",
        (
            (window, collection, chunk, whole[at * size : (at + 1) * size])
            for at, (window, chunk) in enumerate(zip(windows, chunks, strict=True))
        ),
    )


def delete(connection: apsw.Connection, windows: Iterable[int]) -> None:
    """vec0 overwrites a deleted vector with zeros."""
    connection.executemany("DELETE FROM vectors WHERE window = ?", ((window,) for window in windows))


# ---- search --------------------------------------------------------------------------------------------------------


def nearest(connection: apsw.Connection, collection: int, vector: Matrix, count: int) -> dict[int, float]:
    """The best cosine of each chunk among the ``count`` nearest windows of a collection, best first: chunk id -> it."""
    if count > MAX_NEAREST:
        return _best_of_chunks(connection, _scan(blocks(connection, collection), vector, count))
    rows: Any = connection.execute(
        "SELECT chunk, distance FROM vectors WHERE embedding MATCH ? AND k = ? AND collection = ?",
        (vector.astype("<f4").tobytes(), count, collection),
    ).fetchall()
    best: dict[int, float] = {}
    for chunk, distance in rows:
        best.setdefault(chunk, 1.0 - distance * distance / 2.0)  # rows come nearest first; |a-b|^2 = 2 - 2 cos
    return best


def nearest_of(connection: apsw.Connection, documents: Iterable[int], vector: Matrix, count: int) -> dict[int, float]:
    """As :func:`nearest`, among the windows of some documents: those are read, and no others."""
    rows: Any = connection.execute(
        "SELECT w.id FROM chunks AS k CROSS JOIN windows AS w ON w.chunk = k.id"
        " WHERE k.document IN (SELECT value FROM json_each(?))",
        (as_json(documents),),
    ).fetchall()
    eligible = blocks_of(connection, [window for (window,) in rows])
    return _best_of_chunks(connection, _scan(eligible, vector, count))


def _scan(found: Iterable[Block], vector: Matrix, count: int) -> list[tuple[int, float]]:
    """The ``count`` windows of the largest product with ``vector``, best first."""
    windows, scores = [], []
    for ids, rows in found:
        windows.append(ids)
        scores.append(rows @ np.asarray(vector, np.float32))
    if not windows:
        return []
    all_windows, all_scores = np.concatenate(windows), np.concatenate(scores)
    if count < len(all_scores):
        kept = np.argpartition(-all_scores, count - 1)[:count]
        all_windows, all_scores = all_windows[kept], all_scores[kept]
    order = np.argsort(-all_scores, kind="stable")
    return list(zip(all_windows[order].tolist(), all_scores[order].tolist(), strict=True))


def _best_of_chunks(connection: apsw.Connection, found: Sequence[tuple[int, float]]) -> dict[int, float]:
    rows: Any = connection.execute(
        "SELECT id, chunk FROM windows WHERE id IN (SELECT value FROM json_each(?))",
        (as_json(window for window, _ in found),),
    ).fetchall()
    chunk_of = dict(rows)
    best: dict[int, float] = {}
    for window, score in found:
        best.setdefault(chunk_of[window], score)
    return best


# ---- rows in bulk --------------------------------------------------------------------------------------------------


def blocks(connection: apsw.Connection, collection: int | None = None) -> Iterator[Block]:
    """Every stored vector, or those of one collection, in the order of the blocks."""
    keys: Any = connection.execute(
        "SELECT chunk_id FROM vectors_chunks WHERE ?1 IS NULL OR partition00 = ?1 ORDER BY chunk_id", (collection,)
    ).fetchall()
    for (key,) in keys:
        yield _block(connection, key)


def owned_blocks(connection: apsw.Connection) -> Iterator[VectorBlock]:
    """Every stored vector with what it belongs to, some hundred at a time."""
    for windows, vectors in blocks(connection):
        found: Any = connection.execute(
            "SELECT w.id, w.chunk, k.document, d.collection FROM json_each(?) AS j CROSS JOIN windows AS w"
            " ON w.id = j.value CROSS JOIN chunks AS k ON k.id = w.chunk"
            " CROSS JOIN documents AS d ON d.key = k.document ORDER BY j.key",
            (as_json(windows.tolist()),),
        ).fetchall()
        if found:
            owners = np.array(found, np.int64)
            yield VectorBlock(owners[:, 0], owners[:, 1], owners[:, 2], owners[:, 3], vectors)


def _block(connection: apsw.Connection, key: int) -> Block:
    row: Any = connection.execute(
        "SELECT c.validity, c.rowids, v.vectors FROM vectors_chunks AS c JOIN vectors_vector_chunks00 AS v"
        " ON v.rowid = c.chunk_id WHERE c.chunk_id = ?",
        (key,),
    ).fetchone()
    validity, windows, vectors = row
    live = np.flatnonzero(np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little"))
    matrix = np.frombuffer(vectors, "<f4").reshape(SLOTS, -1)
    return np.frombuffer(windows, "<i8")[live], matrix if len(live) == SLOTS else matrix[live]


def blocks_of(connection: apsw.Connection, windows: Sequence[int]) -> Iterator[Block]:
    """The vectors of some windows, block by block."""
    places: Any = connection.execute(
        "SELECT chunk_id, chunk_offset, rowid FROM vectors_rowids WHERE rowid IN (SELECT value FROM json_each(?))"
        " ORDER BY chunk_id",
        (as_json(windows),),
    ).fetchall()
    if not places:
        return
    table = np.array(places, np.int64)
    edges = np.flatnonzero(np.diff(table[:, 0])) + 1
    for part in np.split(table, edges):
        blob: Any = connection.execute(
            "SELECT vectors FROM vectors_vector_chunks00 WHERE rowid = ?", (int(part[0, 0]),)
        ).get
        yield part[:, 2], np.frombuffer(blob, "<f4").reshape(SLOTS, -1)[part[:, 1]]


# ---- space ---------------------------------------------------------------------------------------------------------


def unused(connection: apsw.Connection) -> int:
    """Slots that will not be used again."""
    return sum(SLOTS - live for held in _occupancy(connection).values() for live in held.values())


def sparse(connection: apsw.Connection, slack: float) -> list[int]:
    """Blocks to empty, the emptiest first, so that unused slots are at most ``slack`` of those in use."""
    chosen: list[int] = []
    for held in _occupancy(connection).values():
        waste = sum(SLOTS - live for live in held.values())
        allowed = slack * sum(held.values())
        for key, live in sorted(held.items(), key=lambda one: one[1]):
            if waste <= allowed or live == SLOTS:
                break
            chosen.append(key)
            waste -= SLOTS - live
    return chosen


def _occupancy(connection: apsw.Connection) -> dict[int, dict[int, int]]:
    """For each collection its blocks, but for the newest, which is still being filled: block -> vectors in it."""
    found: dict[int, dict[int, int]] = {}
    held_rows: Any = connection.execute("SELECT chunk_id, partition00, validity FROM vectors_chunks ORDER BY chunk_id")
    for key, collection, validity in held_rows:
        found.setdefault(collection, {})[key] = int.from_bytes(validity, "little").bit_count()
    for held in found.values():
        held.popitem()
    return found


def empty(connection: apsw.Connection, key: int) -> int:
    """Move the vectors of a block to where vec0 adds new ones, which frees it; how many they were."""
    windows, vectors = _block(connection, key)
    moved: Any = connection.execute(
        "SELECT w.chunk, d.collection FROM json_each(?) AS j CROSS JOIN windows AS w ON w.id = j.value"
        " CROSS JOIN chunks AS k ON k.id = w.chunk CROSS JOIN documents AS d ON d.key = k.document ORDER BY j.key",
        (as_json(windows.tolist()),),
    ).fetchall()
    kept = vectors.copy()
    delete(connection, windows.tolist())
    insert(connection, moved[0][1], windows.tolist(), (chunk for chunk, _ in moved), kept)
    return len(moved)

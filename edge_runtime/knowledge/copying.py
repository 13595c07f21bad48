"""Documents of one index file, row by row, into another one with the same tables: for exports, and for embedding anew.

Tables that belong to a document are found by their column ``document``, so a new one needs no word here. Terms follow
by the triggers on ``chunks``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
import numpy as np

from edge_runtime.knowledge.inspection import columns, tables
from edge_runtime.knowledge.records import Matrix


@dataclass(frozen=True, slots=True)
class Window:
    """One vector of a chunk, and the stretch of the chunk that it was made from (None: not noted)."""

    chunk: int  # id in the source
    start: int | None
    end: int | None
    vector: bytes  # float32


@dataclass(slots=True)
class Copying:
    """From ``source`` into ``target``; the caller holds a transaction on each. ``window`` is the next free number."""

    source: apsw.Connection
    target: apsw.Connection
    window: int = 1
    _columns: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in tables(self.target, "table"):
            self._columns[table] = [name for name, _, _ in columns(self.target, table)]

    def document(self, key: int, changes: Mapping[str, int | float | str]) -> None:
        """The row of a document, with some of its columns changed, and nothing that belongs to it."""
        self._put("documents", self._rows("documents", "key = ?", key), changes)

    def parts(self, key: int, to: int, chunks: Mapping[int, int], sentences: Matrix | None = None) -> None:
        """What belongs to a document but its vectors, for the document ``to``; ``chunks`` maps ids.

        ``sentences`` (number, width) float32 takes the place of the stored vectors of its sentences, in their order.
        """
        for table, names in self._columns.items():
            if "document" not in names or table in ("chunks", "sentences"):
                continue
            self._put(table, self._rows(table, "document = ?", key), {"document": to})
        rows = self._rows("sentences", "document = ?", key, order="start")
        if sentences is not None:
            half = np.ascontiguousarray(sentences, "<f2")
            at = self._columns["sentences"].index("vector")
            rows = [(*row[:at], half[number].tobytes(), *row[at + 1 :]) for number, row in enumerate(rows)]
        self._put("sentences", rows, {"document": to})
        at = self._columns["chunks"].index("id")
        rows = self._rows("chunks", "document = ?", key, order="id")
        rows = [(*row[:at], chunks[row[at]], *row[at + 1 :]) for row in rows]
        self._put("chunks", rows, {"document": to})

    def chunks(self, key: int) -> list[int]:
        """Ids of a document's chunks, as they stand in it."""
        rows: Any = self.source.execute(
            "SELECT id FROM chunks WHERE document = ? ORDER BY start, id", (key,)
        ).fetchall()
        return [row[0] for row in rows]

    def windows(self, key: int) -> list[Window]:
        """The stored vectors of a document, chunk by chunk."""
        rows: Any = self.source.execute(
            'SELECT w.chunk, w.start, w."end", v.embedding FROM windows AS w CROSS JOIN vectors AS v ON v.window = w.id'
            " WHERE w.chunk IN (SELECT id FROM chunks WHERE document = ?) ORDER BY w.chunk, w.id",
            (key,),
        ).fetchall()
        return [Window(*row) for row in rows]

    def vectors(self, windows: Sequence[Window], chunks: Mapping[int, int], collection: int) -> None:
        """Vectors for chunks that were copied to ``collection``; they are numbered in the order given."""
        numbered = list(enumerate(windows, self.window))
        self.window += len(numbered)
        self.target.executemany(
            'INSERT INTO windows (id, chunk, start, "end") VALUES (?, ?, ?, ?)',
            [(number, chunks[one.chunk], one.start, one.end) for number, one in numbered],
        )
        self.target.executemany(
            "INSERT INTO vectors (window, collection, chunk, embedding) VALUES (?, ?, ?, ?)",
            [(number, collection, chunks[one.chunk], one.vector) for number, one in numbered],
        )

    def _rows(self, table: str, where: str, key: int, order: str = "") -> list[tuple[Any, ...]]:
        names = self._columns[table]
        listed = ", ".join(f'"{name}"' for name in names)
        order = order or ", ".join(str(number) for number in range(1, len(names) + 1))
        # Names of our own schema, here and below.
        statement = f'SELECT {listed} FROM "{table}" WHERE {where} ORDER BY {order}'  # noqa: S608
        rows: Any = self.source.execute(statement, (key,))
        found: list[tuple[Any, ...]] = rows.fetchall()
        return found

    def _put(self, table: str, rows: Sequence[tuple[Any, ...]], changes: Mapping[str, int | float | str]) -> None:
        names = self._columns[table]
        listed, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
        at = {names.index(name): value for name, value in changes.items()}
        given = [tuple(at.get(number, value) for number, value in enumerate(row)) for row in rows]
        self.target.executemany(f'INSERT INTO "{table}" ({listed}) VALUES ({marks})', given)  # noqa: S608


def text_of(connection: apsw.Connection, key: int) -> str:
    """The whole text of the document with this key."""
    rows: Any = connection.execute("SELECT text FROM texts WHERE document = ? ORDER BY start", (key,)).fetchall()
    return "".join(row[0] for row in rows)


def content_id(collection: str, name: str, sha256: str, text: str) -> str:
    """An id that depends on what the document is alone: the same in every export, another for another text."""
    state = hashlib.blake2b(digest_size=8)
    for part in (collection, name, sha256, text):
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little") + data)
    return f"doc-{state.hexdigest()}"

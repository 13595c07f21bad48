"""How rare the terms of the full-text index are: exact for rare ones, at a bounded cost for those in many chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from edge_runtime.knowledge.schema import SHIFT

_READ = 1024  # occurrences of a term: how many chunks hold it is told by how far they reach
_KEPT = 4096  # terms


class Rarities:
    """Counts as of one epoch, kept until the next. Safe to use from many threads."""

    def __init__(self) -> None:
        self._held: tuple[int, int, dict[str, int]] = (-1, 0, {})

    def of(self, connection: apsw.Connection, epoch: int, stems: Iterable[str]) -> tuple[int, dict[str, int]]:
        """The number of chunks, and for each stem that any holds, of how many do."""
        at, total, known = self._held
        if at != epoch:
            total = connection.execute("SELECT coalesce(sum(chunks), 0) FROM documents").get
            known = {}
            self._held = (epoch, total, known)
        if len(known) > _KEPT:
            known.clear()
        wanted = list(dict.fromkeys(stems))
        for stem in wanted:
            if stem not in known:
                known[stem] = _count(connection, stem, total)
        return total, {stem: count for stem in wanted if (count := known.get(stem, 0))}


def _count(connection: apsw.Connection, stem: str, total: int) -> int:
    """The chunks that hold a term. Its first occurrences come in the order of the chunks: where there are more, those
    read are taken for a fair sample of the chunks up to the last one read."""
    row: Any = connection.execute(
        "SELECT count(DISTINCT doc), count(*), max(doc) FROM (SELECT doc FROM chunk_instances WHERE term = ? LIMIT ?)",
        (stem, _READ),
    ).fetchone()
    chunks, occurrences, last = row
    if occurrences < _READ:
        return int(chunks)
    share = _position(connection, last)
    return min(total, round(chunks / share)) if share > 0 else min(total, int(chunks))


def _position(connection: apsw.Connection, chunk: int) -> float:
    """The share of all chunk numbers that come up to this one."""
    rows: Any = connection.execute("SELECT id, next_chunk - 1 FROM collections").fetchall()
    collection, number = chunk >> SHIFT, chunk & ((1 << SHIFT) - 1)
    before: int = sum(count for key, count in rows if key < collection) + number
    whole: int = sum(count for _, count in rows)
    return before / max(whole, 1)

"""An exact scan over the codes of a mapped file, then exact cosines of what it chose; takes arrays, holds no state.

Every row's Hamming distance is counted. Rows outside the collection or the documents asked for are out before any are
chosen, so a filter costs no result.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.codes import Bits, Numbers, Scaled, restored, signs
from edge_runtime.knowledge.records import Matrix
from edge_runtime.knowledge.scan_file import SEGMENT, SHIFT, Columns, Rows

_OUT = 65_535  # the distance of a row that is not asked for
_PLANES = 3  # so many words differ by 192 bits at most, which a byte holds
_STEP = 17  # one row in so many tells which distance is near; a prime, so that no regular order of rows hides from it
_MORE = 4  # times as many are scored where the first ones may not be all
_WIDTH = 384
_TABLE = 1 << 24  # document keys up to here are looked up in a table

Distances = NDArray[np.uint16]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class View:
    """What a scan sees: the rows up to ``count``, as of ``epoch``."""

    epoch: int
    count: int
    mean: Matrix
    columns: Columns


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows of one collection and, unless None, of these documents only; keys as the index has them."""

    collection: int
    documents: Numbers | None = None

    @classmethod
    def of(cls, collection: int, documents: Collection[int] | None) -> Wanted:
        return cls(collection, None if documents is None else np.fromiter(documents, np.int64, len(documents)))


class _Scratch(threading.local):
    """Room for a thread's intermediate results: taken from the system each time, it would cost as much as the scan."""

    def __init__(self) -> None:
        self.words = np.empty(SEGMENT, np.uint64)
        self.bits = np.empty((3, SEGMENT), np.uint8)
        self.inside = np.empty(SEGMENT, np.bool_)
        self.distances = np.empty(0, np.uint16)

    def room(self, count: int) -> Distances:
        if len(self.distances) < count:
            self.distances = np.empty(max(count, 2 * len(self.distances)), np.uint16)
        return self.distances[:count]


_scratch = _Scratch()


def nearest(view: View, vector: Matrix, count: int, wanted: Wanted) -> dict[int, float]:
    """Chunk id -> cosine of the ``count`` rows nearest to the unit vector (width,), best of each chunk, best first."""
    if not view.count or count < 1:
        return {}
    found = distances(view, vector, wanted)
    size = candidates(count, view.count, len(vector))
    chosen = lowest(found, size)
    rows, cosines = score(view.columns, chosen, vector, count)
    if size < view.count and _close(found, chosen, rows):
        # Once: of a query that is near to nothing, codes tell little, and going on would end with every row.
        rows, cosines = score(view.columns, lowest(found, size * _MORE), vector, count)
    segments, places = rows >> SHIFT, rows & (SEGMENT - 1)
    best: dict[int, float] = {}
    for chunk, cosine in zip(view.columns.chunk[segments, places].tolist(), cosines.tolist(), strict=True):
        best.setdefault(chunk, cosine)
    return best


def candidates(count: int, rows: int, width: int) -> int:
    """How many of ``rows`` are scored for the best ``count``, at first: shorter codes tell less of a vector."""
    return (1024 + 12 * count + rows // 200) * max(_WIDTH, width) // width


def _close(found: Distances, chosen: Rows, best: Rows) -> bool:
    """Whether the best are also found in the farther half of those that were chosen: then more may lie beyond it."""
    near = found[chosen]
    middle = np.partition(near, len(near) // 2)[len(near) // 2] if len(near) else 0
    return int(np.count_nonzero(found[best] > middle)) > len(best) // 100


def distances(view: View, vector: Matrix, wanted: Wanted) -> Distances:
    """(count,) differing bits of each row's code; the thread's next scan overwrites them."""
    query = signs(vector[None], view.mean)[:, 0]
    found = _scratch.room(view.count)
    table = _table(wanted.documents)
    for segment in range(len(view.columns.codes)):
        first = segment << SHIFT
        if first >= view.count:
            break
        part = found[first : min(first + SEGMENT, view.count)]
        inside = _inside(view.columns, segment, len(part), wanted, table)
        held = np.count_nonzero(inside)
        if held:
            _hamming(view.columns.codes[segment], query, part)
        if held < len(part):
            part[~inside] = _OUT
    return found


def _hamming(codes: Bits, query: Bits, out: Distances) -> None:
    """Differing bits of ``out.size`` codes, plane by plane: what a plane needs stays in the processor's cache."""
    count = len(out)
    words, (bits, *sums) = _scratch.words[:count], _scratch.bits[:, :count]
    for start in range(0, len(codes), _PLANES):
        total = sums[bool(start)]
        np.bitwise_xor(codes[start, :count], query[start], out=words)
        np.bitwise_count(words, out=total)
        for plane in range(start + 1, min(start + _PLANES, len(codes))):
            np.bitwise_xor(codes[plane, :count], query[plane], out=words)
            np.bitwise_count(words, out=bits)
            np.add(total, bits, out=total)
        match start:
            case 0:
                if len(codes) <= _PLANES:
                    out[:] = total
            case _ if start == _PLANES:
                np.add(sums[0], total, out=out, dtype=np.uint16)
            case _:
                np.add(out, total, out=out)


def _table(documents: Numbers | None) -> Mask | None:
    """Whether a document is asked for, by its key; None where keys are too large for that."""
    if documents is None or not len(documents) or documents.max() >= _TABLE:
        return None
    table = np.zeros(int(documents.max()) + 2, np.bool_)
    table[documents] = True
    return table


def _inside(columns: Columns, segment: int, count: int, wanted: Wanted, table: Mask | None) -> Mask:
    inside = np.equal(columns.collection[segment, :count], wanted.collection, out=_scratch.inside[:count])
    if wanted.documents is None or not inside.any():
        return inside
    keys = columns.document[segment, :count]
    if table is None:
        inside &= np.isin(keys, wanted.documents)
    else:
        inside &= table[np.minimum(keys, len(table) - 1)]
    return inside


def lowest(found: Distances, count: int) -> Rows:
    """The ``count`` rows of the least distances, or all that are asked for, in the order of rows; ties may add some."""
    if len(found) <= 2 * count:
        return np.flatnonzero(found < _OUT)
    sample = found[::_STEP]
    expected = count * len(sample) / len(found)
    place = min(int(expected + 3 * expected**0.5) + 1, len(sample) - 1)
    limit = min(int(np.partition(sample, place)[place]), _OUT - 1)
    rows = np.flatnonzero(found <= limit)
    if count <= len(rows) <= 3 * count:
        return rows
    return _counted(found, count)


def _counted(found: Distances, count: int) -> Rows:
    """The same by counting every distance: where the sample misled, or many rows are at the same distance."""
    totals = np.cumsum(np.bincount(found, minlength=_OUT + 1)[:_OUT])
    limit = int(np.searchsorted(totals, min(count, totals[-1])))
    below = np.flatnonzero(found < limit)
    return np.sort(np.concatenate([below, np.flatnonzero(found == limit)[: count - len(below)]]))


def score(columns: Columns, rows: Rows, vector: Matrix, count: int) -> tuple[Rows, Matrix]:
    """The best ``count`` of ``rows`` and their cosines, best first: all by the high byte, the best by all 16 bits."""
    segments, places = rows >> SHIFT, rows & (SEGMENT - 1)
    kept = 2 * count + 16
    if len(rows) > kept:
        rough = np.vecdot(columns.high[segments, places].astype(np.float32), vector)
        rough *= columns.scale[segments, places]
        best = np.argpartition(rough, -kept)[-kept:]
        rows, segments, places = rows[best], segments[best], places[best]
    numbers = Scaled(columns.scale[segments, places], columns.high[segments, places], columns.low[segments, places])
    cosines = np.vecdot(restored(numbers), vector)  # a product of matrices would wake BLAS's threads
    order = np.argsort(-cosines, kind="stable")[:count]
    return rows[order], cosines[order]

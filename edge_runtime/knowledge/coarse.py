"""The coarse copy of an index's vectors: a mapped file that is scanned instead of the database, as of a known epoch.

A copy and nothing more: damaged, foreign or behind, it is not believed and is built anew from the database. Whoever
asks at an epoch that it has not gets None and takes the exact way. Many readers, no lock between them; one writer.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_runtime.knowledge import scanning
from edge_runtime.knowledge.codes import Scaled, restored, scaled, signs
from edge_runtime.knowledge.records import Matrix, VectorBlock
from edge_runtime.knowledge.scan_file import SEGMENT, SHIFT, Columns, Header, Keys, Rows, ScanFile, segments_of
from edge_runtime.knowledge.scanning import View, Wanted

FILE = "vectors.scan"
NEVER = -1  # the epoch of a copy that holds nothing
_BLOCK = 4096  # rows that are decoded at once
_VIEWS = 8  # epochs that can still be asked for while documents are added
_HELD = 64  # changes that wait for one before them; more, and that one will not come
_HELD_ROWS = 200_000  # rows that wait for a rebuild to end
_GROWN = 4  # times as many rows as the mean was taken of: it is taken again
_LEAST_DEAD = 4096  # rows; fewer are not worth a new file


@dataclass(frozen=True, slots=True)
class _Change:
    """What one transaction of the index did to its vectors."""

    rows: VectorBlock | None
    dropped: frozenset[int]


class Coarse:
    """One file of codes and vectors, below one directory that is its own."""

    def __init__(self, path: Path, width: int) -> None:
        self.trouble = ""  # why nothing is kept here
        self._path = path
        self._width = width
        self._lock = threading.RLock()
        self._file: ScanFile | None = None
        self._header = _empty(width, NEVER)
        self._views: tuple[View, ...] = ()  # the newest first
        self._floor = NEVER  # results of views before this epoch may hold rows that were overwritten meanwhile
        self._changes: dict[int, _Change] = {}
        self._building = False
        self._lineage = 0

    @classmethod
    def open(cls, directory: Path, width: int, *, lineage: int = 0, epoch: int | None = None) -> Coarse:
        """The copy below ``directory``; where there is none that can be believed, one at the epoch :data:`NEVER`.

        ``lineage`` is the number that :meth:`renew` was given last; with another one it copies another history. So it
        does where the database is at another ``epoch`` when both are opened (None: whatever it is at).
        """
        coarse = cls(directory / FILE, width)
        coarse._lineage = lineage
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = ScanFile.open(coarse._path, width)
        except OSError as error:
            coarse._give_up(error)
        else:
            if file is not None and file.header.lineage == lineage and epoch in (None, file.header.epoch):
                coarse._show(file, file.header)
            elif file is not None:
                file.close()
        return coarse

    def renew(self, lineage: int) -> None:
        """Belong to the database's history that has this number from now on."""
        with self._lock:
            self._lineage = lineage
            if self._file is None:
                return
            self._header = replace(self._header, lineage=lineage)
            try:
                self._file.commit(self._header)
            except OSError as error:
                self._give_up(error)

    @property
    def epoch(self) -> int:
        return self._header.epoch

    @property
    def rows(self) -> int:
        """Vectors of documents that are there."""
        return self._header.live

    @property
    def bytes(self) -> int:
        """What it takes on the disk."""
        with self._lock:
            return self._file.bytes if self._file is not None else 0

    def ready(self, epoch: int) -> bool:
        """Whether a question at this epoch of the database can be answered here."""
        return any(view.epoch == epoch for view in self._views)

    def nearest(
        self, vector: Matrix, count: int, *, epoch: int, collection: int, documents: Collection[int] | None = None
    ) -> dict[int, float] | None:
        """Chunk id -> cosine of the ``count`` nearest windows, best of each chunk, best first.

        ``vector`` (width,) has unit length; ``collection`` and ``documents`` are keys, None stands for all documents of
        the collection. None: this copy is not at ``epoch``, or rows of that epoch were overwritten during the scan.
        """
        view = next((view for view in self._views if view.epoch == epoch), None)
        if view is None:
            return None
        found = scanning.nearest(view, vector, count, Wanted.of(collection, documents))
        return found if self._floor <= epoch else None

    def append(self, rows: VectorBlock | None, *, epoch: int, dropped: Collection[int] = ()) -> None:
        """Follow a transaction that brought the database to ``epoch``: ``dropped`` documents went, ``rows`` came.

        Every epoch has to be told, in any order. Does not fail: without room on the disk the copy is given up.
        """
        with self._lock:
            self._changes[epoch] = _Change(rows, frozenset(dropped))
            self._follow()
            if self._building:
                held = sum(len(change.rows.chunks) for change in self._changes.values() if change.rows is not None)
                if held > _HELD_ROWS:
                    self._changes.clear()  # the rebuild will not catch up, and has to be done again
            else:
                self._forget()

    def drop(self, documents: Collection[int], *, epoch: int) -> None:
        """:meth:`append` of no rows."""
        self.append(None, epoch=epoch, dropped=documents)

    def rebuild(self, blocks: Iterable[VectorBlock], epoch: int) -> None:
        """Make the file anew from all rows of one snapshot of the database, and catch up with what changed meanwhile.

        Takes seconds for a million rows; searches and changes go on. Afterwards :meth:`ready` tells whether it helped.
        """
        with self._lock:
            if self._building:
                return
            self._building = True
        try:
            made = self._fill(((_keys(block), block.rows) for block in blocks), epoch)
            with self._lock:
                self._install(*made)
                self._follow()
        except OSError as error:
            self._give_up(error)
        finally:
            with self._lock:
                self._building = False
                self._forget()

    def compact(self) -> None:
        """Give back the room of rows that were dropped."""
        with self._lock:
            if self._file is None or self._header.live == self._header.count:
                return
            try:
                self._install(*self._fill(_living(self._file.columns, self._header.count), self._header.epoch))
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        with self._lock:
            self._views = ()
            self._header = _empty(self._width, NEVER)
            if self._file is not None:
                self._file.close()
            self._file = None

    # ---- the writer's side: the lock is held -----------------------------------------------------------------------

    def _follow(self) -> None:
        """Apply the changes that come next, show the result, then see to the disk."""
        if self._file is None:
            return
        before = self._header
        header = before
        try:
            while (change := self._changes.get(header.epoch + 1)) is not None:
                header = self._apply(self._file, header, change)
            if header is not before:
                self._show(self._file, header)
                self._file.commit(header)
            if header.count - header.live > max(header.live, _LEAST_DEAD):
                self.compact()
        except OSError as error:
            self._give_up(error)

    def _apply(self, file: ScanFile, before: Header, change: _Change) -> Header:
        header = replace(before, epoch=before.epoch + 1)
        if change.dropped:
            rows = _rows_of(file.columns, before.count, change.dropped)
            if len(rows):
                self._floor = header.epoch
                file.erase(rows)
                header = replace(header, live=header.live - len(rows))
        if change.rows is None or not len(change.rows.chunks):
            return header
        size = len(change.rows.chunks)
        file.write(header.count, _keys(change.rows), scaled(change.rows.rows))
        header = replace(header, count=header.count + size, live=header.live + size)
        if header.count >= _GROWN * header.centred:
            self._floor = header.epoch
            return _centre(file, header)
        file.encode(before.count, signs(change.rows.rows, header.mean))
        return header

    def _fill(self, blocks: Iterable[tuple[Keys, Matrix]], epoch: int) -> tuple[ScanFile, Header]:
        """A file beside ours with all of ``blocks``, not yet committed. Raises OSError."""
        file = ScanFile.create(self._path.with_suffix(".new"), self._width)
        try:
            count = 0
            for keys, vectors in blocks:
                file.write(count, keys, scaled(vectors))
                count += len(keys.chunk)
            return file, _centre(
                file, replace(_empty(self._width, epoch), count=count, live=count, lineage=self._lineage)
            )
        except BaseException:
            file.close()
            raise

    def _install(self, file: ScanFile, header: Header) -> None:
        """Put a new file in the place of ours. Raises OSError."""
        try:
            file.commit(header)
            self._path.with_suffix(".new").rename(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except BaseException:
            file.close()
            raise
        if self._file is not None:
            self._file.close()
        self._views = ()
        self.trouble = ""
        self._show(file, header)

    def _show(self, file: ScanFile, header: Header) -> None:
        """From now on readers see this."""
        view = View(header.epoch, header.count, header.mean, file.columns)
        older = (view for view in self._views if self._floor <= view.epoch < header.epoch)
        self._file, self._header = file, header
        self._views = (view, *older)[:_VIEWS]

    def _forget(self) -> None:
        """Let go of changes that are applied, and of those that wait for one that will not come."""
        late = {epoch: change for epoch, change in self._changes.items() if epoch > self._header.epoch}
        self._changes = late if len(late) <= _HELD and self._file is not None else {}

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            self.close()
            self.trouble = (
                f"the copy of the vectors {self._path} cannot be read or written ({error.strerror or error}): searches "
                "take longer; check the disk's free space and the file's owner"
            )
            for path in (self._path, self._path.with_suffix(".new")):
                with contextlib.suppress(OSError):
                    path.unlink()


def _empty(width: int, epoch: int) -> Header:
    return Header(width, epoch, 0, 0, 0, np.zeros(width, np.float32))


def _keys(block: VectorBlock) -> Keys:
    return Keys(block.chunks, block.documents, block.collections)


def _stretches(count: int) -> Iterator[tuple[int, slice]]:
    """All rows up to ``count``, some at a time: segment and rows of it."""
    for segment in range(segments_of(count)):
        last = min(SEGMENT, count - (segment << SHIFT))
        for start in range(0, last, _BLOCK):
            yield segment, slice(start, min(start + _BLOCK, last))


def _vectors(columns: Columns, segment: int, part: slice) -> Matrix:
    return restored(
        Scaled(columns.scale[segment, part], columns.high[segment, part], columns.low[segment, part])
    )  # fmt: skip


def _living(columns: Columns, count: int) -> Iterator[tuple[Keys, Matrix]]:
    """The rows that were not dropped."""
    for segment, part in _stretches(count):
        collection = columns.collection[segment, part]
        there = np.flatnonzero(collection)
        keys = Keys(
            columns.chunk[segment, part][there],
            columns.document[segment, part][there],
            collection[there].astype(np.int64),
        )
        yield keys, _vectors(columns, segment, part)[there]


def _rows_of(columns: Columns, count: int, documents: Collection[int]) -> Rows:
    """The rows of these documents, in order."""
    keys = np.fromiter(documents, np.int64, len(documents))
    found = [
        np.flatnonzero(np.isin(columns.document[segment, part], keys)) + (segment << SHIFT) + part.start
        for segment, part in _stretches(count)
    ]
    return np.concatenate([np.empty(0, np.intp), *found])


def _centre(file: ScanFile, header: Header) -> Header:
    """Code every row around nearly the mean of all that are there. Raises OSError."""
    total = np.zeros(header.width, np.float64)
    for segment, part in _stretches(header.count):
        total += _vectors(file.columns, segment, part).sum(axis=0, dtype=np.float64)
    # Not quite the mean: of rows that are all alike, rounding alone would say on which side of it they lie.
    mean = (0.9 * total / max(header.live, 1)).astype(np.float32)  # rows that were dropped are 0
    for segment, part in _stretches(header.count):
        file.encode((segment << SHIFT) + part.start, signs(_vectors(file.columns, segment, part), mean))
    return replace(header, centred=header.count, mean=mean)

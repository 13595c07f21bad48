"""The file that a scan maps: a header and segments of rows, each column of a segment in one piece.

It is read through a mapping and written with ``pwrite``, so a full disk is an error and not a signal. Rows count once
the header counts them, and the header goes to the disk after them; one that does not match its digest is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.codes import Bits, Bytes, Numbers, Scaled, planes
from edge_runtime.knowledge.records import Matrix

SHIFT = 14
SEGMENT = 1 << SHIFT  # rows: a column of codes fills 128 KiB, a segment's codes the second-level cache
_PAGE = 4096
_MAGIC = b"edgescan"
_VERSION = 1
_FIELDS = struct.Struct("<8sIIIqQQQQ")  # magic, version, width, rows a segment, epoch, count, live, centred, lineage
_DIGEST_BYTES = 16
_MAX_WIDTH = 8192

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Header:
    """``count`` rows are there, ``live`` of them of documents that are; the mean is of the first ``centred`` ones."""

    width: int
    epoch: int
    count: int
    live: int
    centred: int
    mean: Matrix  # (width,)
    lineage: int = 0  # of the database that it copies

    def encode(self) -> bytes:
        fields = _FIELDS.pack(
            _MAGIC, _VERSION, self.width, SEGMENT, self.epoch, self.count, self.live, self.centred, self.lineage
        ) + self.mean.astype("<f4").tobytes()  # fmt: skip
        return fields + _digest(fields)

    @classmethod
    def decode(cls, data: bytes, width: int) -> Header | None:
        """None: damaged, or of another version, width or program."""
        size = _FIELDS.size + 4 * width
        fields, digest = data[:size], data[size : size + _DIGEST_BYTES]
        if len(digest) < _DIGEST_BYTES or _digest(fields) != digest:
            return None
        magic, version, held, segment, epoch, count, live, centred, lineage = _FIELDS.unpack_from(fields)
        if (magic, version, held, segment) != (_MAGIC, _VERSION, width, SEGMENT) or live > count:
            return None
        mean = np.frombuffer(fields, "<f4", width, _FIELDS.size)
        return cls(width, epoch, count, live, centred, mean.astype(np.float32), lineage)


def _digest(fields: bytes) -> bytes:
    return hashlib.blake2b(fields, digest_size=_DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Columns:
    """The mapped file. The first axis is the segment, the second its row; of ``codes`` the second is the plane."""

    codes: Bits  # (segments, planes, SEGMENT)
    high: Bytes  # (segments, SEGMENT, width)
    low: Bytes
    chunk: Numbers  # (segments, SEGMENT)
    document: Numbers
    collection: NDArray[np.int32]  # 0: the row is no longer there
    scale: Matrix


@dataclass(frozen=True, slots=True)
class Keys:
    """What rows belong to, as the index numbers it; 0 is no key."""

    chunk: Numbers  # (n,)
    document: Numbers
    collection: Numbers


class _Layout:
    """Where in the file each column of a segment begins."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.start = -(-(_FIELDS.size + 4 * width + _DIGEST_BYTES) // _PAGE) * _PAGE
        words, row = planes(width), (SEGMENT,)
        self.kinds: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = {
            "codes": (np.dtype("<u8"), (words, SEGMENT)),
            "high": (np.dtype("i1"), (SEGMENT, width)),
            "low": (np.dtype("i1"), (SEGMENT, width)),
            "chunk": (np.dtype("<i8"), row),
            "document": (np.dtype("<i8"), row),
            "collection": (np.dtype("<i4"), row),
            "scale": (np.dtype("<f4"), row),
        }
        self.offsets: dict[str, int] = {}
        self.segment_bytes = 0
        for name, (kind, shape) in self.kinds.items():
            self.offsets[name] = self.segment_bytes
            self.segment_bytes += kind.itemsize * int(np.prod(shape))

    def size(self, segments: int) -> int:
        """Bytes of a file with so many segments."""
        return self.start + segments * self.segment_bytes

    def columns(self, buffer: mmap.mmap, segments: int) -> Columns:
        found: dict[str, NDArray[np.generic]] = {}
        for name, (kind, shape) in self.kinds.items():
            within = np.empty(shape, kind).strides
            offset = self.start + self.offsets[name]
            found[name] = np.ndarray(
                (segments, *shape), kind, buffer=buffer, offset=offset, strides=(self.segment_bytes, *within)
            )
        return Columns(**found)  # type: ignore[arg-type]  # each has the type that its kind says

    def at(self, name: str, segment: int, row: int, plane: int = 0) -> int:
        """The byte at which a row's cell of a column begins."""
        kind, shape = self.kinds[name]
        wide = kind.itemsize * (shape[1] if name in ("high", "low") else 1)
        return self.size(segment) + self.offsets[name] + (plane * SEGMENT * kind.itemsize) + row * wide


class ScanFile:
    """One open file, and one writer; what :attr:`columns` gave stays readable for as long as somebody holds it."""

    def __init__(self, descriptor: int, layout: _Layout, header: Header) -> None:
        self.header = header  # as it was written last
        self._descriptor = descriptor
        self._layout = layout
        self._segments = segments_of(header.count)
        self.columns = self._map()

    @classmethod
    def create(cls, path: Path, width: int) -> Self:
        """A new, empty file in place of what is at ``path``; it has no header before :meth:`commit`. Raises OSError."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        layout = _Layout(width)
        try:
            os.ftruncate(descriptor, layout.size(1))
            return cls(descriptor, layout, Header(width, -1, 0, 0, 0, np.zeros(width, np.float32)))
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def open(cls, path: Path, width: int) -> Self | None:
        """None: not there, or not to be believed. Raises OSError: it is there and cannot be read."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        layout = _Layout(width)
        try:
            header = Header.decode(os.pread(descriptor, layout.start, 0), width)
            if header is not None and os.fstat(descriptor).st_size >= layout.size(segments_of(header.count)):
                return cls(descriptor, layout, header)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _map(self) -> Columns:
        size = self._layout.size(self._segments)
        mapped = mmap.mmap(self._descriptor, size, access=mmap.ACCESS_READ)
        return self._layout.columns(mapped, self._segments)

    def write(self, first: int, keys: Keys, numbers: Scaled) -> None:
        """Rows from ``first`` on, but for their codes. Raises OSError: the disk is full, for one."""
        self._reach(first + len(keys.chunk))
        for segment, start, skip, count in _pieces(first, len(keys.chunk)):
            part = slice(skip, skip + count)
            for name, cells in (
                ("high", numbers.high),
                ("low", numbers.low),
                ("scale", numbers.scale),
                ("chunk", keys.chunk),
                ("document", keys.document),
                # Last: this is what says that the row is there.
                ("collection", keys.collection),
            ):
                kind = self._layout.kinds[name][0]
                self._put(self._layout.at(name, segment, start), np.ascontiguousarray(cells[part], kind))

    def encode(self, first: int, codes: Bits) -> None:
        """(planes, n) words as the codes of rows from ``first`` on, which are written. Raises OSError."""
        for segment, start, skip, count in _pieces(first, codes.shape[1]):
            for plane, words in enumerate(codes[:, skip : skip + count]):
                self._put(self._layout.at("codes", segment, start, plane), np.ascontiguousarray(words, "<u8"))

    def erase(self, rows: Rows) -> None:
        """Overwrite ``rows`` (sorted) with zeros, what says that they are there first."""
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []:
            for segment, start, _, count in _pieces(int(run[0]), len(run)):
                for name in reversed(self._layout.kinds):
                    kind, shape = self._layout.kinds[name]
                    cells = (count, shape[1]) if name in ("high", "low") else (count,)
                    for plane in range(shape[0] if name == "codes" else 1):
                        self._put(self._layout.at(name, segment, start, plane), np.zeros(cells, kind))

    def commit(self, header: Header) -> None:
        """Bring what was written to the disk, then the header that counts it. Raises OSError."""
        os.fdatasync(self._descriptor)
        self._put(0, np.frombuffer(header.encode(), np.uint8))
        os.fdatasync(self._descriptor)
        self.header = header

    def _reach(self, count: int) -> None:
        segments = segments_of(count)
        if segments > self._segments:
            # The rest of the segment is a hole: it takes no room before it is written.
            os.ftruncate(self._descriptor, self._layout.size(segments))
            self._segments = segments
            self.columns = self._map()

    def _put(self, offset: int, cells: NDArray[np.generic]) -> None:
        rest = memoryview(cells.data).cast("B") if cells.size else memoryview(b"")
        while rest:
            done = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[done:], offset + done

    @property
    def bytes(self) -> int:
        """What the file takes on the disk."""
        return os.fstat(self._descriptor).st_blocks * 512

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def segments_of(count: int) -> int:
    """How many segments ``count`` rows take; a file has one at least."""
    return max(1, -(-count // SEGMENT))


def _pieces(first: int, count: int) -> list[tuple[int, int, int, int]]:
    """``count`` rows from ``first`` on, cut at segments: segment, row in it, how many were before, how many."""
    out = []
    done = 0
    while done < count:
        segment, start = divmod(first + done, SEGMENT)
        size = min(SEGMENT - start, count - done)
        out.append((segment, start, done, size))
        done += size
    return out

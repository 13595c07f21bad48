"""What the index takes and gives: a document ready to be stored, and rows as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.documents import Chunk, Format, Span

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDocument:
    """A document with everything derived from it, ready to be stored in one transaction.

    ``windows[i]`` is (n_i, width) float32: the unit vectors of chunk i, one a window, and ``window_spans[i]`` the n_i
    stretches of the chunk that they read, in characters from the chunk's start; left empty, nothing counts as embedded.
    ``digests[i]`` is :func:`edge_runtime.knowledge.digests.chunk_digest` of chunk i; left empty, they are computed.
    ``sentence_vectors`` is (len(sentences), width) float32. ``date`` is YYYY-MM-DD.
    """

    name: str
    collection: str
    format: Format
    sha256: str
    title: str
    text: str
    pages: int | None
    chunks: list[Chunk]
    windows: list[Matrix]
    sentences: list[Span] = field(default_factory=list)
    sentence_vectors: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))
    tags: tuple[str, ...] = ()
    date: str | None = None
    digests: list[bytes] = field(default_factory=list)
    window_spans: list[list[tuple[int, int]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    """The vectors (n, width) float32 of a stored chunk and the stretches of it that they read."""

    rows: Matrix
    spans: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Known:
    """What a stored document has embedded already; nothing where there is no such document.

    ``chunks`` goes by :func:`edge_runtime.knowledge.digests.chunk_digest`, ``sentences`` by its ``text_digest``; the
    latter hold vectors (width,) as they are stored, float16.
    """

    chunks: Mapping[bytes, EmbeddedChunk] = field(default_factory=dict)
    sentences: Mapping[bytes, NDArray[np.float16]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk as stored, with its document's name."""

    id: int
    document_id: str
    document: str
    start: int
    end: int
    heading: tuple[str, ...]
    page: int | None
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of one chunk, in order; ``vectors`` is (len(spans), width) float32, unit length."""

    chunk: int
    spans: list[Span]
    texts: list[str]
    vectors: Matrix


@dataclass(frozen=True, slots=True)
class VectorBlock:
    """Some stored vectors: row i of ``rows`` (n, width) float32 is of window ``windows[i]``, which belongs to chunk
    ``chunks[i]`` of the document and collection with the keys ``documents[i]`` and ``collections[i]`` (all int64)."""

    windows: NDArray[np.int64]
    chunks: NDArray[np.int64]
    documents: NDArray[np.int64]
    collections: NDArray[np.int64]
    rows: Matrix


@dataclass(frozen=True, slots=True)
class IndexStats:
    documents: int
    chunks: int
    windows: int
    sentences: int
    file_bytes: int
    epoch: int  # grows with every change


@dataclass(frozen=True, slots=True)
class IndexCounts:
    """What the index holds and takes."""

    documents: int
    chunks: int
    windows: int
    sentences: int
    coverage: float  # share of the text, without white space, that lies in an embedded window; 1.0 without a text
    embedder: str  # whose vectors it holds, with their width
    file_bytes: int  # of the database and its write-ahead log
    free_bytes: int  # of those: what compacting would give back, by estimate
    epoch: int

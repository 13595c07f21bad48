"""What the index takes and gives: a document ready to be stored, and rows as they are stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.documents import Chunk, Format, Span

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDocument:
    """A document with everything derived from it, ready to be stored in one transaction.

    ``windows[i]`` is (n_i, width) float32: the unit vectors of chunk i, one a window. ``sentence_vectors`` is
    (len(sentences), width) float32.
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
class IndexStats:
    documents: int
    chunks: int
    windows: int
    sentences: int
    file_bytes: int
    epoch: int  # grows with every change

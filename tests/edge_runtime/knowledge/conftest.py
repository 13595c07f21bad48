"""A real embedding model in this process, and an index on a real disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.embedding.onnx import Encoder
from edge_runtime.embedding.windows import pool as pooled
from edge_runtime.knowledge.cut_child import Cut, cut
from edge_runtime.knowledge.documents import Chunk, Limits, Span
from edge_runtime.knowledge.embedder import TextKind, Vectors
from edge_runtime.knowledge.filters import Scope
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.ingest import Arrival, Intake
from edge_runtime.knowledge.parsing import read as parsed
from edge_runtime.knowledge.records import Matrix, PreparedDocument
from edge_runtime.knowledge.tokens import token_offsets
from edge_runtime.knowledge_protocol import DocumentAdded


class LocalEmbedder:
    """The protocol that ingest wants, without a child process."""

    def __init__(self, weights: Path, tokenizer: Path) -> None:
        self._encoder = Encoder(weights, tokenizer, threads=1)
        self._offsets = token_offsets(tokenizer)
        self.texts = 0

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        self.texts += len(texts)
        rows, spans = [], []
        for text in texts:
            pieces = self._encoder.read(text, kind)
            found = self._encoder.encode([piece.ids for piece in pieces])
            rows.append(pooled(found)[None] if pool else found)
            whole = [(0, len(text))]
            spans.append(whole if pool else [(piece.window.start, piece.window.end) for piece in pieces])
        return Vectors(rows, spans)

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        return self._offsets(text)

    async def read(self, name: str, content: bytes, limits: Limits) -> Cut:
        """As a :class:`Cutter` does it, in this process and without its limits."""
        document = parsed(name, content, text_chars=limits.text_chars, seconds=limits.seconds)
        return cut(document, self._offsets, limits)

    def intake(self, index: Index, limits: Limits | None = None) -> Intake:
        return Intake(index, self, limits or Limits(), read=self.read)


async def ingest(intake: Intake, name: str, content: bytes, collection: str = "default") -> DocumentAdded:
    """One document alone."""
    return await intake.add(Arrival(name=name, content=content, collection=collection))


@pytest.fixture(scope="session")
def local_embedder(embedder_files: tuple[Path, Path]) -> LocalEmbedder:
    return LocalEmbedder(*embedder_files)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index.open(tmp_path / "index.db", embedder="test")
    yield opened
    opened.close()


def direction(seed: int, count: int = 1) -> Matrix:
    """Unit vectors that are the same for the same seed."""
    rows = np.random.default_rng(seed).standard_normal((count, 384)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def everything(index: Index, collection: str = "default") -> Scope:
    """The scope of a whole collection."""
    scope = index.scope(collection)
    assert scope is not None
    return scope


def written(
    name: str,
    text: str,
    *,
    collection: str = "default",
    seed: int = 0,
    sha256: str | None = None,
    parts: int = 1,
    tags: tuple[str, ...] = (),
    date: str | None = None,
) -> PreparedDocument:
    """A document of ``parts`` chunks of equal length and as many sentences, with made-up vectors."""
    size = -(-len(text) // parts)
    spans = [Span(at, min(at + size, len(text))) for at in range(0, len(text), size)]
    return PreparedDocument(
        name=name,
        collection=collection,
        format="text",
        sha256=sha256 or f"sha-{hash(text)}",
        title=name,
        text=text,
        pages=None,
        chunks=[Chunk(span.start, span.end, ("Top", "Sub"), 2, 10) for span in spans],
        windows=[direction(seed + at, 2) for at in range(len(spans))],
        # Two windows that overlap.
        window_spans=[
            [(0, 2 * (span.end - span.start) // 3), ((span.end - span.start) // 2, span.end - span.start)]
            for span in spans
        ],
        sentences=spans,
        sentence_vectors=direction(seed + 77, len(spans)),
        tags=tags,
        date=date,
    )

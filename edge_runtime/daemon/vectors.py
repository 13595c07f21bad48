"""The embedder child in the shape that knowledge works with: NumPy rows, and the model's own count of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_runtime.daemon.children import Embedder
from edge_runtime.knowledge.chunking import Offsets
from edge_runtime.knowledge.embedder import TextKind, Vectors, token_offsets


class DocumentEmbedder:
    """Satisfies :class:`edge_runtime.knowledge.embedder.Embedder`; ``tokenizer`` is the model's ``tokenizer.json``."""

    def __init__(self, embedder: Embedder, tokenizer: Path) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._offsets: Offsets | None = None

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        """Raises EngineError: the embedder is not there."""
        if not texts:
            return Vectors([], [])
        found = await self._embedder.embed(texts, pool=pool, kind=kind)
        table = np.frombuffer(found.data, "<f4").reshape(-1, found.width)
        ends = np.cumsum(found.counts)
        bounds = [(int(end - count), int(end)) for end, count in zip(ends, found.counts, strict=True)]
        return Vectors(
            [table[first:last] for first, last in bounds], [found.spans[first:last] for first, last in bounds]
        )

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """The characters of each token of ``text``. The first call reads the tokenizer, 0.1 s.

        Raises:
            ModelFileError: it is missing or damaged.
        """
        if self._offsets is None:
            self._offsets = token_offsets(self._tokenizer)
        return self._offsets(text)

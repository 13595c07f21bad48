"""The embedder child in the shape that knowledge works with: NumPy rows."""

from __future__ import annotations

import numpy as np

from edge_runtime.daemon.children import Embedder
from edge_runtime.knowledge.embedder import TextKind, Vectors


class DocumentEmbedder:
    """Satisfies :class:`edge_runtime.knowledge.embedder.Embedder`."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

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

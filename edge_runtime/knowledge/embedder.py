"""What ingest and search need of an embedding model; the daemon provides it over the embedder child."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from edge_runtime.knowledge.records import Matrix

TextKind = Literal["query", "passage"]  # some models read what is searched for differently from what is found


@dataclass(frozen=True, slots=True)
class Vectors:
    """For text i, ``rows[i]`` is (n_i, width) float32 of unit vectors and ``spans[i]`` the n_i stretches of characters
    that they read; n_i is 1 where windows were pooled."""

    rows: list[Matrix]
    spans: list[list[tuple[int, int]]]


class Embedder(Protocol):
    """Embeds texts whole, whatever their length."""

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        """Raises EngineError: the embedder is not there."""

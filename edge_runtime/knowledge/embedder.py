"""What ingest and search need of an embedding model; the daemon provides it over the embedder child."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tokenizers import Tokenizer

from edge_runtime.errors import ModelFileError
from edge_runtime.knowledge.chunking import Offsets
from edge_runtime.knowledge.records import Matrix

TextKind = Literal["query", "passage"]  # some models read what is searched for differently from what is found


@dataclass(frozen=True, slots=True)
class Vectors:
    """For text i, ``rows[i]`` is (n_i, width) float32 of unit vectors and ``spans[i]`` the n_i stretches of characters
    that they read; n_i is 1 where windows were pooled."""

    rows: list[Matrix]
    spans: list[list[tuple[int, int]]]


class Embedder(Protocol):
    """Embeds texts whole, whatever their length, and counts their tokens as the model does."""

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        """Raises EngineError: the embedder is not there."""

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """The character span of each token, without special tokens."""


def token_offsets(path: Path) -> Offsets:
    """The token counter of the embedder whose ``tokenizer.json`` is at ``path``.

    Raises:
        ModelFileError: missing or damaged.
    """
    # One thread is enough to count, and its pool of threads would not survive the forks of edged.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFileError(
            f"{path} is missing or damaged ({error}): fetch the model again (edge model pull)"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def offsets(text: str) -> Sequence[tuple[int, int]]:
        clean = text.encode("utf-8", "replace").decode("utf-8")
        spans: Sequence[tuple[int, int]] = tokenizer.encode(clean, add_special_tokens=False).offsets
        return spans

    return offsets

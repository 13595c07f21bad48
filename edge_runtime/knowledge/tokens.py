"""Counts tokens as an embedding model does. Imports little else: the child that cuts documents needs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from edge_runtime.errors import ModelFileError
from edge_runtime.knowledge.chunking import Offsets


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

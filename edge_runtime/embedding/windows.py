"""Cuts a tokenised text into overlapping windows that a sentence encoder can read whole, and pools their vectors.

Pure: token offsets and vectors in, windows and vectors out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERLAP_TOKENS = 32

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens ``first`` to ``last`` (exclusive) of a text, and the characters ``start`` to ``end`` that they cover."""

    first: int
    last: int
    start: int
    end: int


def cut(offsets: Sequence[tuple[int, int]], length: int, *, size: int, overlap: int = OVERLAP_TOKENS) -> list[Window]:
    """The fewest windows of at most ``size`` tokens that cover all tokens, as even as they can be.

    ``offsets`` are the tokens' character spans, without special tokens; ``length`` is that of the text. Neighbours
    share at least ``overlap`` tokens. The characters of all windows together are 0 to ``length``; a text without tokens
    is one empty window.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"an overlap of {overlap} does not fit windows of {size}")
    count = len(offsets)
    if count <= size:
        return [Window(0, count, 0, length)]
    step = size - overlap
    windows = -(-(count - overlap) // step)
    width = -(-(count + (windows - 1) * overlap) // windows)
    firsts = [index * (count - width) // (windows - 1) for index in range(windows)]
    return [
        Window(
            first,
            first + width,
            0 if first == 0 else offsets[first][0],
            length if first + width == count else offsets[first + width - 1][1],
        )
        for first in firsts
    ]


def pool(rows: Matrix) -> Matrix:
    """The unit vector of the mean of ``rows`` (n, width) -> (width,)."""
    mean: Matrix = unit(rows.mean(axis=0, keepdims=True)) if len(rows) > 1 else rows
    return mean.reshape(-1)


def unit(rows: Matrix) -> Matrix:
    """Each row divided by its length; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)

"""How a vector is written down for scanning: one bit a dimension to choose by, 16 bits a dimension to score by. Pure.

The bit says on which side of the mean a component lies: of two vectors, the share of differing bits estimates their
angle around that mean (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.records import Matrix

PLANE_BITS = 64
_HIGHEST = 127 * 256  # a component's high byte stays within int8 when it is rounded
_NOTHING = 1e-30  # below it a share of a component could not be told from 0

Bits = NDArray[np.uint64]
Bytes = NDArray[np.int8]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scaled:
    """``vectors = scale * (256 * high + low)``: of each component of 16 bits the high byte and the rest."""

    scale: Matrix  # (n,)
    high: Bytes  # (n, width)
    low: Bytes  # (n, width)


def planes(width: int) -> int:
    """Words of 64 bits that a code of ``width`` bits fills."""
    return -(-width // PLANE_BITS)


def signs(vectors: Matrix, mean: Matrix) -> Bits:
    """(planes, n) words: bit by bit whether a component is above its mean; bits beyond the width are 0."""
    packed = np.packbits(vectors > mean, axis=1)
    whole = np.zeros((len(vectors), planes(vectors.shape[1]) * PLANE_BITS // 8), np.uint8)
    whole[:, : packed.shape[1]] = packed
    return np.ascontiguousarray(whole.view(np.uint64).T)


def scaled(vectors: Matrix) -> Scaled:
    """Each component as a share of the row's largest, to 1/32512 of that; what is no number counts as 0."""
    clean = np.nan_to_num(vectors, nan=0.0, posinf=0.0, neginf=0.0)
    largest = np.abs(clean).max(axis=1, initial=0.0)
    scale = np.where(largest > _NOTHING, largest / _HIGHEST, 1.0).astype(np.float32)
    whole = np.rint(clean / scale[:, None]).astype(np.int32)
    high = (whole + 128) >> 8
    return Scaled(scale, high.astype(np.int8), (whole - (high << 8)).astype(np.int8))


def restored(rows: Scaled) -> Matrix:
    """(n, width): what :func:`scaled` was given, to its precision."""
    whole = rows.high.astype(np.float32)
    whole *= 256.0
    whole += rows.low
    whole *= rows.scale[:, None]
    return whole

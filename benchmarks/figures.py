"""The few statistics that the benchmarks state: quantiles, area under the curve, intervals. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at the median and the 95th percentile, and the extremes, of ``seconds``."""
    values = np.asarray(seconds) * 1000
    return {
        "n": len(values),
        "p50_ms": round(float(np.quantile(values, 0.5)), 2),
        "p95_ms": round(float(np.quantile(values, 0.95)), 2),
        "min_ms": round(float(values.min()), 2),
        "max_ms": round(float(values.max()), 2),
    }


def area(positive: Array, negative: Array) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    if not len(positive) or not len(negative):
        return math.nan
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    level = np.searchsorted(ordered, positive, side="right")
    return float(((below + level) / 2).sum() / (len(positive) * len(negative)))


def area_interval(
    scores: Array, truths: NDArray[np.bool_], groups: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap of :func:`area`, drawing whole groups, since a paragraph's questions share a fate."""
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(np.asarray(groups) == group) for group in sorted(set(groups))]
    areas = []
    for _ in range(draws):
        drawn = np.concatenate([members[index] for index in random.integers(0, len(members), len(members))])
        areas.append(area(scores[drawn][truths[drawn]], scores[drawn][~truths[drawn]]))
    low, high = np.nanquantile(areas, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def share_interval(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval (Wilson 1927) of a share."""
    if not total:
        return 0.0, 1.0
    z, share = 1.96, successes / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return round((middle - half) / scale, 4), round((middle + half) / scale, 4)


def interpolate(at: Sequence[float], values: Sequence[float], where: float) -> tuple[float, bool]:
    """The value at ``where`` on the line through the points, and whether ``where`` lies between two of them."""
    order = np.argsort(at)
    places = np.asarray(at)[order]
    return float(np.interp(where, places, np.asarray(values)[order])), bool(places[0] <= where <= places[-1])

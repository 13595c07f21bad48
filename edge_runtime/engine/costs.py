"""What a step of the model takes: a cost model fitted to every step that runs, and what it says of the next ones. Pure.

Milliseconds are linear in the rows of a step and in the cells that they attend to, in three classes, for llama.cpp has
three kernels: one row, a few, and 64 or more. How a given number of rows departs from the line (8 rows may be faster
than 5) is kept by number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import mul

TILE = 64  # rows from which flash attention works in tiles
_FORGET = 0.98  # weight of the past at each step: the last fifty or so count
_EXACT_ROWS = 16  # up to here each number of rows has its own correction, above it each eight
_SPREAD = 1e3  # trace of the covariance up to which the past is forgotten
_OUTLIER = 2.0  # a step so many times as long as foretold was disturbed, and teaches little
_CELLS = 1e-3  # scale of the third feature: milliseconds for a thousand row-cells
_GRAIN = 8  # rows; kernels take them in such groups


def _kernel(rows: int) -> int:
    return 0 if rows == 1 else 1 if rows < TILE else 2


def _bin(rows: int) -> int:
    return rows if rows <= _EXACT_ROWS else _EXACT_ROWS + (rows - 1) // _GRAIN


_Features = tuple[float, float, float]


@dataclass(slots=True)
class _Line:
    """Recursive least squares with forgetting (Ljung, System Identification, 11.2) over (1, rows, cells).

    In plain numbers: three of them are too few for NumPy to be of use, and this runs in every step.
    """

    weights: list[float]
    spread: list[list[float]] = field(default_factory=lambda: [[1e3, 0.0, 0.0], [0.0, 1e2, 0.0], [0.0, 0.0, 1e1]])
    seen: int = 0

    def predict(self, features: _Features) -> float:
        return sum(weight * feature for weight, feature in zip(self.weights, features, strict=True))

    def learn(self, features: _Features, value: float) -> None:
        # Steps that are all alike tell nothing of the others: forgetting then would leave nothing known of those.
        forget = _FORGET if sum(self.spread[place][place] for place in range(3)) < _SPREAD else 1.0
        weighed = [sum(map(mul, row, features)) for row in self.spread]
        scale = forget + sum(map(mul, weighed, features))
        wrong = value - self.predict(features)
        gain = [one / scale for one in weighed]
        self.weights = [weight + one * wrong for weight, one in zip(self.weights, gain, strict=True)]
        self.spread = [
            [(cell - one * other) / forget for cell, other in zip(row, weighed, strict=True)]
            for row, one in zip(self.spread, gain, strict=True)
        ]
        self.seen += 1


class StepCost:
    """The cost model for one number of threads; ``prior`` is another's, to begin with, and ``slower`` than that."""

    def __init__(self, prior: StepCost | None = None, *, slower: float = 1.0) -> None:
        guess = [10.0, 3.0, 1.0]
        known = [guess if prior is None else prior.lines[kernel].weights for kernel in range(3)]
        self.lines: list[_Line] = [_Line([weight * slower for weight in weights]) for weights in known]
        self.offsets: dict[int, float] = {} if prior is None else dict(prior.offsets)

    def predict(self, rows: int, cells: int) -> float:
        """Milliseconds of a step of ``rows`` that attend to ``cells`` in all (each row's context, summed)."""
        line = self.lines[_kernel(rows)]
        features = (1.0, rows, cells * _CELLS)
        return max(line.predict(features) * self.offsets.get(_bin(rows), 1.0), 0.01)

    def observe(self, rows: int, cells: int, milliseconds: float) -> None:
        """A step took so long."""
        line = self.lines[_kernel(rows)]
        features = (1.0, rows, cells * _CELLS)
        expected = max(line.predict(features), 0.01)
        if line.seen > 8:
            milliseconds = min(milliseconds, _OUTLIER * expected)
        place = _bin(rows)
        ratio = milliseconds / expected
        self.offsets[place] = self.offsets.get(place, ratio) * 0.8 + 0.2 * ratio if line.seen else 1.0
        line.learn(features, milliseconds)

    def knows(self, rows: int) -> bool:
        """Whether steps of so many rows, or of nearly so many, were seen."""
        return _bin(rows) in self.offsets

    def rows_within(self, milliseconds: float, *, rows: int, cells: int, context: int, most: int) -> int:
        """Prompt rows (0 to ``most``) that fit into a step beside ``rows`` others that attend to ``cells``.

        ``context`` is what each prompt row attends to. Whole groups of eight are chosen where there are several.
        """

        def fits(count: int) -> bool:
            return self.predict(rows + count, cells + count * (context + count // 2)) <= milliseconds

        return _largest(fits, rows, most)


def _largest(fits: Callable[[int], bool], rows: int, most: int) -> int:
    """The largest count up to ``most`` that fits, in steps of the kernels' grain; the tiled kernel is tried first."""
    if most <= 0:
        return 0
    if fits(most):
        return most
    grid = [total - rows for total in range(_GRAIN, rows + most, _GRAIN) if 0 < total - rows < most]
    above = [count for count in grid if count + rows >= TILE]
    below = [count for count in grid if count + rows < TILE]
    for counts in (above, below):
        found = 0
        low, high = 0, len(counts)
        while low < high:
            middle = (low + high) // 2
            if fits(counts[middle]):
                found, low = counts[middle], middle + 1
            else:
                high = middle
        if found:
            return found
    return 0

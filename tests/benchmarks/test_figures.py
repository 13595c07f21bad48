"""The statistics that the benchmarks state, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import figures

scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [([0.9, 0.8], [0.1], 1.0), ([0.1], [0.9], 0.0), ([0.5], [0.5], 0.5), ([0.2, 0.6], [0.4], 0.5)],
)
def test_area_of_small_cases(positive: list[float], negative: list[float], expected: float) -> None:
    assert figures.area(np.array(positive), np.array(negative)) == expected


@given(scores, scores)
def test_area_is_the_share_of_pairs_in_order(positive: list[float], negative: list[float]) -> None:
    pairs = [(above > below) + (above == below) / 2 for above in positive for below in negative]
    assert figures.area(np.array(positive), np.array(negative)) == pytest.approx(sum(pairs) / len(pairs))


def test_area_without_one_side_is_undefined() -> None:
    assert np.isnan(figures.area(np.array([1.0]), np.array([])))


def test_interval_of_an_area_holds_the_area_and_repeats() -> None:
    random = np.random.default_rng(1)
    truths = random.random(200) < 0.5
    values = truths * 0.5 + random.random(200)
    groups = [str(number // 5) for number in range(200)]
    low, high = figures.area_interval(values, truths, groups, draws=200)
    assert low < figures.area(values[truths], values[~truths]) < high
    assert (low, high) == figures.area_interval(values, truths, groups, draws=200)


def test_interval_of_a_share_matches_wilson() -> None:
    assert figures.share_interval(8, 10) == (0.4902, 0.9433)
    assert figures.share_interval(0, 0) == (0.0, 1.0)


def test_spread_is_in_milliseconds() -> None:
    assert figures.spread([0.010, 0.020, 0.030])["p50_ms"] == 20.0

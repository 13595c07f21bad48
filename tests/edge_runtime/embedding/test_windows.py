"""Windows cover every token of a text, within the model's limit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.embedding.windows import cut, pool, unit


def tokens(count: int) -> list[tuple[int, int]]:
    return [(3 * index, 3 * index + 2) for index in range(count)]


@given(count=st.integers(0, 3000), size=st.integers(4, 300), overlap=st.integers(0, 40))
def test_windows_cover_every_token_and_overlap(count: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size // 2)
    offsets = tokens(count)
    windows = cut(offsets, 3 * count, size=size, overlap=overlap)
    assert windows[0].first == 0
    assert windows[-1].last == count
    assert all(window.last - window.first <= size for window in windows)
    for one, following in pairwise(windows):
        assert one.first < following.first <= one.last - overlap
    assert (windows[0].start, windows[-1].end) == (0, 3 * count)
    covered = {index for window in windows for index in range(window.first, window.last)}
    assert covered == set(range(count))
    for window in windows:
        assert all(window.start <= first and last <= window.end for first, last in offsets[window.first : window.last])


def test_a_text_that_fits_is_one_window() -> None:
    assert len(cut(tokens(254), 800, size=254)) == 1
    assert len(cut(tokens(255), 800, size=254)) == 2
    assert len(cut(tokens(600), 1800, size=254)) == 3


def test_an_overlap_as_large_as_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        cut(tokens(10), 30, size=8, overlap=8)


def test_pooled_and_unit_vectors_have_length_one_and_zero_stays_zero() -> None:
    rows = np.array([[3, 4], [0, 5]], np.float32)
    assert np.linalg.norm(pool(unit(rows))) == pytest.approx(1)
    assert unit(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]

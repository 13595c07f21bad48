"""What a cross-encoder's probabilities make of a ranking, and when it is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.reranking import CLEAR, READ, contested, passage, reorder
from edge_runtime.knowledge.search import Found


def found(*scores: float) -> list[Found]:
    return [
        Found(at, f"d{at}", f"n{at}", 0, 4, ("Top", "Sub"), None, f"text {at}", score, score, 0.0)
        for at, score in enumerate(scores)
    ]


def test_a_clear_lead_is_not_contested() -> None:
    assert contested(found(0.9, 0.9 - CLEAR - 0.01, 0.1)) == ()
    assert contested(found(0.9)) == ()
    assert contested([]) == ()


def test_a_close_race_is_read_from_the_top() -> None:
    race = found(*(0.8 - at / 1000 for at in range(60)))
    assert list(contested(race)) == race[:READ]


def test_a_passage_is_read_below_its_headings() -> None:
    assert passage(found(0.5)[0]) == "Top\nSub\ntext 0"


def test_the_probability_is_the_score_of_what_was_read_and_the_rest_follows() -> None:
    order = reorder(found(0.8, 0.7, 0.6, 0.5), [0.2, 0.9])
    assert [one.chunk for one in order] == [1, 0, 2, 3]
    assert [one.score for one in order] == pytest.approx([0.9, 0.2, 0.2, 0.2])
    assert [one.rerank for one in order] == [0.9, 0.2, None, None]


def test_without_probabilities_nothing_changes() -> None:
    race = found(0.8, 0.7)
    assert reorder(race, []) == race


@given(st.lists(st.floats(0, 1), max_size=40), st.lists(st.floats(0, 1), max_size=40))
def test_no_hit_is_lost_and_scores_stay_sorted(scores: list[float], probabilities: list[float]) -> None:
    race = found(*sorted(scores, reverse=True))
    order = reorder(race, probabilities[: len(race)])
    assert {one.chunk for one in order} == {one.chunk for one in race}
    assert [one.score for one in order] == sorted((one.score for one in order), reverse=True)

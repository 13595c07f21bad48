"""Joining two rankings, and the weight that follows the query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.fusion import HEAD, SENTENCE_SHARE, best_bm25, combine, reciprocal, refine, share
from edge_runtime.knowledge.leaning import LEAST, MOST, Traits, Weights, lean

COSINES = st.dictionaries(st.integers(0, 80), st.floats(-1, 1))
SCORES = st.dictionaries(st.integers(0, 80), st.floats(0, 50))


@given(COSINES, SCORES, st.floats(0, 1))
def test_fused_scores_lie_between_zero_and_one_and_lose_no_candidate(
    dense: dict[int, float], lexical: dict[int, float], weight: float
) -> None:
    fused = combine(dense, lexical, best=30.0, weight=weight)
    assert set(fused) == set(dense) | set(lexical)
    assert all(0 <= score <= 1 for score in fused.values())
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


@given(COSINES, SCORES, COSINES, st.floats(0, 1))
def test_refined_scores_stay_sorted_and_lose_no_candidate(
    dense: dict[int, float], lexical: dict[int, float], sentences: dict[int, float], weight: float
) -> None:
    fused = combine(dense, lexical, best=50.0, weight=weight)
    refined = refine(fused, dense, sentences, weight=weight)
    assert set(refined) == set(fused)
    assert list(refined.values()) == sorted(refined.values(), reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in refined.values())
    assert set(list(refined)[:HEAD]) == set(list(fused)[:HEAD])


def test_a_good_sentence_lifts_a_passage_over_one_that_is_nearer_as_a_whole() -> None:
    dense = {1: 0.50, 2: 0.48}
    fused = combine(dense, {}, best=1.0, weight=0.6)
    assert list(fused) == [1, 2]
    refined = refine(fused, dense, {1: 0.5, 2: 0.9}, weight=0.6)
    assert list(refined) == [2, 1]
    assert refined[2] == pytest.approx(0.6 * ((1 - SENTENCE_SHARE) * 0.48 + SENTENCE_SHARE * 0.9))


@given(COSINES, SCORES)
def test_ranks_alone_decide_reciprocal_fusion(dense: dict[int, float], lexical: dict[int, float]) -> None:
    fused = reciprocal(dense, lexical)
    assert set(fused) == set(dense) | set(lexical)
    assert fused == reciprocal(dict.fromkeys(dense, 0.0), dict.fromkeys(lexical, 1.0))
    assert all(0 < score <= 1 for score in fused.values())


def test_the_first_of_both_rankings_has_a_reciprocal_score_of_one() -> None:
    assert reciprocal({7: 0.9, 8: 0.1}, {7: 12.0})[7] == pytest.approx(1)


def test_the_best_bm25_grows_with_rare_terms_and_is_never_zero_for_words() -> None:
    assert best_bm25(100, [1]) > best_bm25(100, [40]) > best_bm25(100, [90]) > 0
    assert best_bm25(0, []) == 0
    assert share(3.0, 0.0) == 0


WORDS = st.lists(st.text(min_size=1, max_size=9), max_size=6).map(tuple)
TRAITS = st.builds(
    Traits,
    codes=WORDS,
    quoted=WORDS,
    rare=WORDS,
    terms=st.integers(0, 9),
    question=st.booleans(),
    known=st.floats(0, 1),
)


@given(TRAITS)
def test_whatever_a_query_holds_its_weight_is_in_bounds_and_has_a_reason(traits: Traits) -> None:
    leaning = lean(traits, Weights(unknown=0.3))
    assert all(0 <= amount <= 1 for amount in traits.amounts.values())
    assert LEAST <= leaning.weight <= MOST
    assert leaning.reason.startswith(f"Meaning weighs {leaning.weight:.2f}")
    assert leaning.reason.endswith(".")


def test_codes_and_quotes_lean_towards_words_and_questions_towards_meaning() -> None:
    plain = lean(Traits(terms=4), Weights()).weight
    assert (
        lean(Traits(codes=("E17",), terms=1), Weights()).weight
        < lean(Traits(codes=("E17",), terms=4), Weights()).weight
    )
    assert lean(Traits(codes=("E17",), terms=4), Weights()).weight < plain
    assert lean(Traits(quoted=("low pressure",), terms=2), Weights()).weight < plain
    assert lean(Traits(terms=4, question=True), Weights()).weight > plain


def test_the_reason_names_what_it_rests_on() -> None:
    reason = lean(Traits(codes=("E17", "P-12"), terms=3, rare=("strainer",)), Weights()).reason
    assert "the codes E17, P-12" in reason
    assert "nothing speaks" in lean(Traits(terms=3), Weights()).reason


def test_kept_weights_come_back_for_their_collection_alone() -> None:
    weights = Weights(base=0.3, code=-0.1)
    settings = weights.settings("pumps")
    assert Weights.of(settings, "pumps") == weights
    assert Weights.of(settings, "pump") == Weights()
    assert Weights.of({"search.pumps.base": 0.9, "search.pumps.of old": 1.0}, "pumps") == Weights(base=0.9)

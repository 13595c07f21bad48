"""Fitting the weights: what labelled queries ask for is found, and nothing is learnt from chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime.errors import RequestError
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.leaning import Traits, Weights
from edge_runtime.knowledge.search import Wanted, collect
from edge_runtime.knowledge.tuning import Judged, fit, judge
from edge_runtime.knowledge_protocol import LabelledQuery
from tests.edge_runtime.knowledge.conftest import direction, written

BEST = 10.0
PLAIN = Traits(terms=4)
CODE = Traits(codes=("E17",), terms=1)


def judged(right: str, traits: Traits, seed: int) -> Judged:
    """Forty candidates, of which the one that is right stands out on the side ``right``."""
    random = np.random.default_rng(seed)
    dense = {key: float(value) for key, value in enumerate(random.uniform(0.3, 0.5, 40))}
    lexical = {key: float(value) for key, value in enumerate(random.uniform(2.0, 4.0, 40))}
    gold = int(random.integers(40))
    (dense if right == "dense" else lexical)[gold] = 0.55 if right == "dense" else 4.6
    return Judged(
        traits=traits,
        dense=dict(sorted(dense.items(), key=lambda item: -item[1])),
        lexical=dict(sorted(lexical.items(), key=lambda item: -item[1])),
        sentences={},
        best=BEST,
        items={key: key for key in range(40)},
        relevant=frozenset({gold}),
        wanted=1,
    )


def cases(count: int, right: Callable[[int], tuple[str, Traits]]) -> list[Judged]:
    return [judged(*right(at), seed=at) for at in range(count)]


def test_where_meaning_is_right_the_base_moves_to_meaning_and_that_holds_for_other_queries() -> None:
    found = fit(cases(60, lambda _: ("dense", PLAIN)), Weights(base=0.2))
    assert found.weights.base > 0.6
    assert found.after > found.before + 0.1
    assert found.dense > 0.95 > found.lexical


def test_where_codes_are_found_by_words_and_the_rest_by_meaning_the_code_leans() -> None:
    some = cases(80, lambda at: ("lexical", CODE) if at % 2 else ("dense", PLAIN))
    found = fit(some, Weights(base=0.5, code=0.0))
    assert found.weights.base > 0.5
    assert found.weights.code < -0.2
    assert found.after > max(found.lexical, found.dense)


def test_a_trait_that_few_queries_have_keeps_its_weight() -> None:
    some = cases(60, lambda at: ("lexical", CODE) if at < 4 else ("dense", PLAIN))
    assert fit(some, Weights(code=-0.13)).weights.code == -0.13


def test_weights_that_are_right_already_stay() -> None:
    some = cases(60, lambda _: ("dense", PLAIN))
    start = Weights(base=0.95)
    found = fit(some, start)
    assert found.weights == start
    assert found.after == pytest.approx(found.before)


def test_labels_of_chance_are_not_believed() -> None:
    random = np.random.default_rng(3)
    some = [judged("dense", PLAIN, seed=at) for at in range(50)]
    blind = [
        Judged(
            traits=one.traits,
            dense=one.dense,
            lexical=one.lexical,
            sentences={},
            best=BEST,
            items=one.items,
            relevant=frozenset({int(random.integers(40))}),
            wanted=1,
        )
        for one in some
    ]
    found = fit(blind, Weights())
    assert found.after < found.before + 0.05


def test_five_queries_are_enough_to_be_measured() -> None:
    found = fit(cases(5, lambda _: ("dense", PLAIN)), Weights())
    assert 0 <= found.after <= 1


# ---- judging -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(index: Index) -> Index:
    index.add(written("pump", "The gland bolts are tightened. The seal is oiled.", seed=1, parts=2))
    index.add(written("tea", "The kettle is descaled in spring.", seed=3))
    return index


def of(shelf: Index, labelled: LabelledQuery) -> Judged:
    pool = collect(shelf, labelled.query, direction(1)[0], Wanted(collection="default"))
    return judge(labelled, shelf.chunks(list({**pool.dense, **pool.lexical})), pool)


def test_a_document_counts_once_by_name_or_id(shelf: Index) -> None:
    identity = next(one.id for one in shelf.documents() if one.name == "pump")
    for label in ("pump", identity):
        found = of(shelf, LabelledQuery(query="gland bolts", documents=[label]))
        assert (found.relevant, found.wanted) == (frozenset({identity}), 1)
        assert sorted(found.items.values()).count(identity) == 2
        assert found.sentences


def test_texts_name_the_passages_that_hold_them_however_they_are_spaced(shelf: Index) -> None:
    found = of(shelf, LabelledQuery(query="gland", texts=["GLAND   bolts", "nowhere"]))
    assert len(found.relevant) == 1
    assert found.wanted == 1


def test_a_document_that_is_not_there_is_still_wanted(shelf: Index) -> None:
    found = of(shelf, LabelledQuery(query="gland", documents=["lost"]))
    assert (found.relevant, found.wanted) == (frozenset(), 1)
    assert fit([found] * 5, Weights()).before == 0


def test_a_query_without_a_label_is_refused_by_its_words(shelf: Index) -> None:
    with pytest.raises(RequestError, match="gland"):
        of(shelf, LabelledQuery(query="gland"))

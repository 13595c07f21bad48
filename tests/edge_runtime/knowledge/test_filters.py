"""Filters take effect before the best are chosen: of many documents that match better, only those asked for count."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.errors import RequestError
from edge_runtime.knowledge.filters import Scope
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge_protocol import Filter
from tests.edge_runtime.knowledge.conftest import direction, everything, written


@pytest.fixture
def shelf(index: Index) -> Index:
    index.add(written("old", "pump alarm", seed=10, tags=("plant", "safety"), date="2019-03-01"))
    index.add(written("new", "pump alarm manual", seed=20, tags=("plant",), date="2024-03-01"))
    index.add(written("plain", "pump alarm of the other kind", seed=30))
    index.add(written("old", "pump alarm elsewhere", seed=10, collection="other", tags=("plant",), date="2019-03-01"))
    return index


def names(index: Index, wanted: Filter | None, collection: str = "default") -> set[str]:
    """What both kinds of search find under a filter; they must agree."""
    scope = index.scope(collection, wanted)
    assert scope is not None
    dense = {row.document for row in index.chunks(list(index.nearest(scope, direction(10)[0], 50)))}
    assert dense == {row.document for row in index.chunks(list(index.matching(scope, '"pump"', 50)))}
    return dense


def test_each_part_of_a_filter_keeps_what_passes(shelf: Index) -> None:
    identity = next(one.id for one in shelf.documents("default") if one.name == "plain")
    assert names(shelf, None) == names(shelf, Filter()) == {"old", "new", "plain"}
    assert names(shelf, Filter(documents=["old"])) == {"old"}
    assert names(shelf, Filter(documents=["new", identity, "nobody"])) == {"new", "plain"}
    assert names(shelf, Filter(tags=["plant"])) == {"old", "new"}
    assert names(shelf, Filter(tags=["plant", "safety", "plant"])) == {"old"}
    assert names(shelf, Filter(since="2019-03-01")) == {"old", "new"}
    assert names(shelf, Filter(since="2019-03-02")) == {"new"}
    assert names(shelf, Filter(until="2024-02-29")) == {"old"}
    assert names(shelf, Filter(tags=["plant"], since="2020-01-01", documents=["old", "new"])) == {"new"}


def test_what_no_document_passes_finds_nothing(shelf: Index) -> None:
    for wanted in (
        Filter(documents=["nobody"]),
        Filter(tags=["plant", "absent"]),
        Filter(since="2030-01-01"),
        Filter(documents=["plain"], until="2030-01-01"),
        Filter(documents=["' OR 1 --", '"]', "%"]),
    ):
        assert names(shelf, wanted) == set()


def test_a_document_of_another_collection_does_not_pass_by_its_id(shelf: Index) -> None:
    (foreign,) = shelf.documents("other")
    assert names(shelf, Filter(documents=[foreign.id])) == set()
    assert names(shelf, Filter(documents=[foreign.id]), collection="other") == {"old"}
    assert shelf.scope("nowhere", Filter(tags=["plant"])) is None


def test_the_few_that_pass_are_found_behind_many_that_match_better(index: Index) -> None:
    wanted = index.add(written("wanted", "pump " + "filler words " * 400, seed=5000, tags=("rare",)))
    for at in range(60):
        index.add(written(f"n{at}", "pump pump pump", seed=1))
    query = direction(1)[0]
    scope = index.scope("default", Filter(tags=["rare"]))
    assert scope is not None
    (chunk,) = index.nearest(scope, query, 1)
    assert list(index.matching(scope, '"pump"', 1)) == [chunk]
    assert index.chunks([chunk])[0].document_id == wanted.id
    assert index.nearest(scope, query, 5)[chunk] == pytest.approx(index.cosines([chunk], query)[chunk], abs=1e-6)


def test_filtered_scores_are_those_of_the_whole_collection(shelf: Index) -> None:
    scope = shelf.scope("default", Filter(documents=["new", "plain"]))
    assert scope is not None
    whole = shelf.matching(everything(shelf), '"alarm" OR "manual"', 50)
    part = shelf.matching(scope, '"alarm" OR "manual"', 50)
    assert part == {chunk: score for chunk, score in whole.items() if chunk in part}
    assert len(part) == 2
    cosines = shelf.nearest(everything(shelf), direction(20)[0], 50)
    for chunk, cosine in shelf.nearest(scope, direction(20)[0], 50).items():
        assert cosine == pytest.approx(cosines[chunk], abs=1e-5)


def test_more_than_vec0_gives_at_once_are_found_exactly(index: Index) -> None:
    index.add(written("large", "word " * 2300, parts=2300, seed=3))
    index.add(written("aside", "word " * 40, parts=40, seed=3, collection="other"))
    query = direction(77)[0]
    scope = everything(index)
    found = index.nearest(scope, query, 4600)  # two windows a chunk
    assert len(found) == 2300
    assert list(found.values()) == sorted(found.values(), reverse=True)
    few = index.nearest(scope, query, 4096)
    assert list(few)[:50] == list(found)[:50]
    assert np.allclose(list(few.values())[:50], list(found.values())[:50], atol=1e-5)
    assert index.nearest(scope, query, 0) == {}


def test_the_key_of_a_removed_document_is_never_another_ones(shelf: Index) -> None:
    last = next(one for one in shelf.documents("default") if one.name == "plain")
    scope = shelf.scope("default", Filter(documents=[last.id]))
    assert scope is not None
    shelf.remove(last.id)
    shelf.add(written("next", "pump alarm", seed=30))
    assert shelf.nearest(scope, direction(30)[0], 5) == {} == shelf.matching(scope, '"pump"', 5)


def test_no_documents_at_all_are_an_empty_scope_and_not_everything(shelf: Index) -> None:
    scope = Scope(everything(shelf).collection, frozenset())
    assert shelf.nearest(scope, direction(10)[0], 5) == {} == shelf.matching(scope, '"pump"', 5)


def test_a_date_that_is_no_day_is_refused(index: Index) -> None:
    with pytest.raises(RequestError, match="YYYY-MM-DD"):
        index.add(written("a", "words", date="yesterday"))
    kept = index.add(written("a", "words", tags=("z", "a", "z"), date="2024-02-03"))
    assert (kept.tags, kept.date) == (["a", "z"], "2024-02-03")
    with pytest.raises(RequestError, match="YYYY-MM-DD"):
        index.label(kept.id, tags=[], date="24-2-3")
    assert index.document(kept.id) == kept

"""Search: by words, by meaning, by both; never from another collection, never an error for odd text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import PermissionDeniedError
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.leaning import Weights
from edge_runtime.knowledge.search import Wanted, rank, search
from edge_runtime.knowledge_protocol import Filter, Fusion, SearchMode
from tests.edge_runtime.knowledge.conftest import LocalEmbedder, direction, ingest, written


@pytest.fixture
def shelf(index: Index) -> Index:
    index.add(written("seven", "Alarm E17 means that the suction pressure is low.", seed=1))
    index.add(written("eight", "Alarm E18 means that the discharge valve is closed.", seed=2))
    index.add(written("tea", "The kettle in the canteen is descaled in spring.", seed=3))
    index.add(written("other", "Alarm E17 in the other building.", collection="other", seed=1))
    return index


def test_a_code_is_found_by_its_word(shelf: Index) -> None:
    found = search(shelf, "What does E17 mean?", None, collection="default", mode="lexical")
    assert found[0].document == "seven"
    assert found[0].dense is None
    assert 0 < found[0].lexical <= 1
    assert found[0].text[found[0].start : found[0].end] == "Alarm E17 means that the suction pressure is low."


def test_a_meaning_is_found_by_its_vector(shelf: Index) -> None:
    found = search(shelf, "zzz", direction(3, 2)[1], collection="default", mode="dense")
    assert found[0].document == "tea"
    assert found[0].dense == pytest.approx(1, abs=1e-3)


def test_hybrid_results_carry_both_scores_and_are_sorted(shelf: Index) -> None:
    found = search(shelf, "alarm pressure", direction(3, 2)[1], collection="default", k=3)
    assert len(found) == 3
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.dense is not None and -1.001 <= one.dense <= 1.001 for one in found)
    words_alone = search(shelf, "alarm pressure", None, collection="default")
    assert [one.document for one in words_alone] == ["seven", "eight"]


def test_the_exact_cosine_is_given_for_what_words_alone_found(shelf: Index) -> None:
    vector = direction(1, 2)[0]
    for one in search(shelf, "E17", vector, collection="default", mode="lexical"):
        assert one.dense == pytest.approx(shelf.cosines([one.chunk], vector)[one.chunk], abs=1e-6)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_another_collection_never_shows_even_when_it_matches_best(shelf: Index, mode: SearchMode) -> None:
    for at in range(60):
        shelf.add(written(f"n{at}", f"Alarm E17 number {at}", collection="other", seed=1))
    found = search(shelf, "alarm E17", direction(1, 2)[0], collection="default", mode=mode, k=10)
    assert {one.document for one in found} <= {"seven", "eight", "tea"}
    assert found[0].document == "seven"
    assert search(shelf, "alarm", direction(1, 2)[0], collection="nowhere", mode=mode) == []


def test_a_collection_with_readers_answers_them_and_the_owner_alone(shelf: Index) -> None:
    shelf.set_collection("other", uids=[1000], gids=[50])
    for reader in (None, Reader(1000), Reader(7, frozenset({50, 60})), Reader(0, owner=True)):
        assert search(shelf, "E17", None, collection="other", readers=reader)
    with pytest.raises(PermissionDeniedError, match="other"):
        search(shelf, "E17", None, collection="other", readers=Reader(7, frozenset({51})))
    assert search(shelf, "E17", None, collection="default", readers=Reader(7))


HOSTILE = [
    '"', "'", "''", 'a"b', "NEAR(a b)", "a AND", "OR", "NOT", "a*", "^a", "text:a", "-a", "a + b", "{a b}:c", "(", ")",
    "a:b.c?d", "E17/E18", "%", "\\", "\0", "a\0b", "?", "日本", "é", "🙂", "SELECT 1; DROP TABLE chunks", "what is the",
    "ß", "ſt",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_full_text_syntax_in_a_question_is_only_words(shelf: Index, text: str) -> None:
    search(shelf, text, None, collection="default")
    search(shelf, f"{text} pressure", direction(1)[0], collection="default")
    found = search(shelf, f"{text} pressure", None, collection="default", mode="lexical")
    assert found[0].document == "seven"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200) | st.text(alphabet="\"'()*:^-+{}[]ANDORNEAR \0é", max_size=60))
def test_no_text_makes_search_fail(shelf: Index, text: str) -> None:
    for one in search(shelf, text, None, collection="default", mode="lexical"):
        assert 0 <= one.lexical <= 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=100) | st.text(alphabet="\ud800\udfff\x00\x1b\x07 aE17", max_size=40))
def test_surrogates_and_control_characters_are_no_error_in_any_mode(shelf: Index, text: str) -> None:
    for mode in ("hybrid", "lexical", "dense"):
        for one in search(shelf, text, direction(1)[0], collection="default", mode=mode):  # type: ignore[arg-type]
            assert 0 <= one.score <= 1


@pytest.mark.parametrize("text", ["x" * 100_000, "pressure " * 11_111, "\0" * 100_000, '"' * 100_000, "日" * 100_000])
def test_a_query_of_a_hundred_thousand_characters_is_answered(shelf: Index, text: str) -> None:
    ranking = rank(shelf, text, direction(1)[0], Wanted(collection="default"))
    assert len(ranking.found) == 3
    assert len(ranking.expression) < 40_000


def test_only_the_first_words_of_a_long_query_are_read_and_it_is_said(shelf: Index) -> None:
    text = " ".join(f"word{at}" for at in range(5000)) + " pressure"
    ranking = rank(shelf, text, None, Wanted(collection="default", mode="lexical"))
    assert ranking.found == []
    assert ranking.dropped[-1].startswith("and ")
    assert ranking.dropped[-1].endswith(" more words")


@pytest.mark.parametrize("text", ["насос давление", "مضخة الضغط", "水泵压力", "השסתום סגור", "पंप दबाव"])
def test_a_query_in_another_script_finds_the_words_of_that_script(shelf: Index, text: str) -> None:
    shelf.add(written("foreign", f"{text}. E17", seed=9))
    assert search(shelf, text, None, collection="default", mode="lexical")[0].document == "foreign"
    assert search(shelf, text, direction(9, 2)[0], collection="default")[0].document == "foreign"


def test_a_query_of_stop_words_alone_searches_for_them(shelf: Index) -> None:
    ranking = rank(shelf, "what is the", None, Wanted(collection="default", mode="lexical"))
    assert [one.document for one in ranking.found]
    assert ranking.dropped == ()


def test_a_report_tells_what_was_searched_for_and_what_was_left_out(shelf: Index) -> None:
    ranking = rank(shelf, 'What does "suction pressure" mean?', direction(1)[0], Wanted(collection="default"))
    assert '"suction pressure"' in ranking.expression
    assert set(ranking.dropped) == {"What", "does"}
    assert "suction pressure" in ranking.leaning.reason
    assert {"terms", "scan", "words", "fuse", "rows"} == set(ranking.timings_ms)


def test_the_parts_of_a_hit_are_those_of_its_score(shelf: Index) -> None:
    vector = direction(1, 2)[0]
    ranking = rank(shelf, "E17 pressure", vector, Wanted(collection="default", weight=0.5, k=3))
    first = ranking.found[0]
    assert (first.document, first.dense_rank, first.lexical_rank) == ("seven", 1, 1)
    assert first.sentence is not None
    assert first.dense is not None
    mixed = 0.6 * first.dense + 0.4 * max(first.sentence, 0)
    assert first.score == pytest.approx(0.5 * mixed + 0.5 * first.lexical, abs=1e-5)
    unheard = next(one for one in ranking.found if one.document == "tea")
    assert (unheard.bm25, unheard.lexical_rank, unheard.lexical) == (None, None, 0.0)


@pytest.mark.parametrize("fusion", ["convex", "rrf"])
def test_both_ways_of_joining_put_first_what_both_sides_put_first(shelf: Index, fusion: Fusion) -> None:
    found = search(shelf, "E17 suction", direction(1, 2)[0], collection="default", fusion=fusion)
    assert found[0].document == "seven"
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(0 <= one.score <= 1 for one in found)


def test_a_weight_of_one_or_none_is_one_side_alone(shelf: Index) -> None:
    tea = direction(3, 2)[1]
    assert search(shelf, "E17 alarm", tea, collection="default", weight=1.0)[0].document == "tea"
    assert search(shelf, "E17 alarm", tea, collection="default", weight=0.0)[0].document == "seven"


def test_weights_that_were_kept_for_a_collection_are_used_there_alone(shelf: Index) -> None:
    shelf.keep_settings(Weights(base=0.25, code=0.0, rare=0.0, question=0.0).settings("other"))
    weigh = lambda name: rank(shelf, "alarm", direction(1)[0], Wanted(collection=name)).leaning.weight  # noqa: E731
    assert weigh("other") == pytest.approx(0.25)
    assert weigh("default") == pytest.approx(Weights().base)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_filter_is_applied_before_the_best_are_chosen(shelf: Index, mode: SearchMode) -> None:
    for at in range(150):
        shelf.add(written(f"n{at}", f"Alarm E17 suction pressure {at}", seed=1))
    only = Filter(documents=["seven"])
    found = search(shelf, "alarm E17 pressure", direction(1, 2)[0], collection="default", mode=mode, filter=only)
    assert [one.document for one in found] == ["seven"]
    nothing = Filter(documents=["no such document"])
    assert search(shelf, "E17", direction(1)[0], collection="default", mode=mode, filter=nothing) == []


def test_words_that_most_passages_hold_weigh_and_choose_nothing(index: Index) -> None:
    """The bound itself is tested in test_terms; here FTS5 agrees with what it is meant to count."""
    from edge_runtime.knowledge import terms

    for at in range(60):
        index.add(written(f"n{at}", f"pump valve {'gland ' * (at % 3 == 0)}{'seal ' * (at % 7 == 0)}x{at}", seed=at))
    stems = {word: index.stems(word) for word in ("pump", "gland", "seal")}
    total, chunks = index.rarity([stem for parts in stems.values() for stem in parts])
    rows = terms.counted([terms.Term(word, "word") for word in stems], stems, chunks)
    scope = index.scope("default")
    assert scope is not None
    (plain,) = terms.plan(rows, total).expressions
    (gated,) = terms.plan(rows, total, most_rows=chunks["seal"]).expressions
    exact = index.matching(scope, plain.text, 100)
    bounded = index.matching(scope, gated.text, 100)
    assert gated.copies == 2
    assert len(bounded) == chunks["seal"] < len(exact)
    for key, score in bounded.items():
        assert score / gated.copies == pytest.approx(exact[key], rel=1e-9)


def test_a_paraphrase_is_found_by_the_real_model(tmp_path: Path, local_embedder: LocalEmbedder) -> None:
    index = Index.open(tmp_path / "real.db", embedder="minilm")
    pages = {
        "leak.txt": b"If water drips from the shaft seal, replace the mechanical seal.",
        "noise.txt": b"A rattling sound points to a worn bearing.",
        "menu.txt": b"On Fridays the canteen serves fish.",
    }

    async def ask() -> list[str]:
        for name, content in pages.items():
            await ingest(local_embedder.intake(index), name, content)
        question = "The pump is leaking, what should be exchanged?"
        vector = (await local_embedder.embed([question])).rows[0][0]
        return [one.document for one in search(index, question, vector, collection="default")]

    assert asyncio.run(ask())[0] == "leak.txt"
    index.close()

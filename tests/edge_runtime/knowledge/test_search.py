"""Search: by words, by meaning, by both; never from another collection, never an error for odd text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import PermissionDeniedError
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.fusion import best_bm25, combine, share
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.search import MAX_TERMS, search, terms
from edge_runtime.knowledge_protocol import SearchMode
from tests.edge_runtime.knowledge.conftest import LocalEmbedder, direction, written


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


def test_stop_words_go_unless_they_are_all_there_is(shelf: Index) -> None:
    assert terms(shelf, "What does the alarm mean?").expression == '"alarm" OR "mean"'
    assert terms(shelf, "who is it").expression == '"who" OR "is" OR "it"'
    assert terms(shelf, "?!").expression == ""
    assert terms(shelf, " ".join(f"w{at}" for at in range(500))).expression.count(" OR ") == MAX_TERMS - 1


def test_how_much_of_a_question_the_index_knows_is_told(shelf: Index) -> None:
    assert terms(shelf, "alarm pressure").known == pytest.approx(1)
    assert terms(shelf, "quantum chromodynamics").known == pytest.approx(0)
    assert 0 < terms(shelf, "pressure chromodynamics").known < 1


@given(
    st.dictionaries(st.integers(0, 20), st.floats(-1, 1)),
    st.dictionaries(st.integers(0, 20), st.floats(0, 50)),
    st.floats(0, 1),
)
def test_fused_scores_lie_between_zero_and_one_and_lose_no_candidate(
    dense: dict[int, float], lexical: dict[int, float], weight: float
) -> None:
    fused = combine(dense, lexical, best=30.0, weight=weight)
    assert set(fused) == set(dense) | set(lexical)
    assert all(0 <= score <= 1 for score in fused.values())
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_the_best_bm25_grows_with_rare_terms_and_is_never_zero_for_words() -> None:
    assert best_bm25(100, [1]) > best_bm25(100, [40]) > best_bm25(100, [90]) > 0
    assert best_bm25(0, []) == 0
    assert share(3.0, 0.0) == 0


def test_a_paraphrase_is_found_by_the_real_model(tmp_path: Path, local_embedder: LocalEmbedder) -> None:
    from edge_runtime.knowledge.documents import Limits
    from edge_runtime.knowledge.ingest import ingest

    index = Index.open(tmp_path / "real.db", embedder="minilm")
    pages = {
        "leak.txt": b"If water drips from the shaft seal, replace the mechanical seal.",
        "noise.txt": b"A rattling sound points to a worn bearing.",
        "menu.txt": b"On Fridays the canteen serves fish.",
    }

    async def ask() -> list[str]:
        for name, content in pages.items():
            await ingest(index, local_embedder, name, content, "default", Limits())
        question = "The pump is leaking, what should be exchanged?"
        vector = (await local_embedder.embed([question])).rows[0][0]
        return [one.document for one in search(index, question, vector, collection="default")]

    assert asyncio.run(ask())[0] == "leak.txt"
    index.close()

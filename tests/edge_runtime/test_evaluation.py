"""The measures against values worked out by hand and against their definitions; the file's two forms and its faults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import evaluation
from edge_runtime.errors import RequestError
from edge_runtime.evaluation import Labelled
from edge_runtime.knowledge_protocol import Hit, Locator
from tests.edge_runtime import samples

LONG = "The gland packing is tightened with 25 Nm, a quarter turn at a time."
rankings = st.lists(st.integers(0, 1), max_size=30)


def hit(document: str, text: str = "", number: int = 0) -> Hit:
    return Hit(
        document=document,
        document_id=f"id-{document}",
        locator=Locator(start=number, end=number + len(text)),
        score=0.5,
        text=text,
    )


# ---- measures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranking", "right", "recall", "ndcg", "reciprocal"),
    [
        # DCG = 1/log2(2) + 1/log2(4) = 1.5; the ideal is 1/log2(2) + 1/log2(3) = 1.63093
        ([1, 0, 1], 2, 1.0, 1.5 / 1.6309297535714573, 1.0),
        ([0, 1, 0], 1, 1.0, 1 / math.log2(3), 0.5),
        ([0, 0, 0], 1, 0.0, 0.0, 0.0),
        ([], 3, 0.0, 0.0, 0.0),
        # Two of four found: 1/log2(3) + 1/log2(6) = 1.01778; the ideal of four is 2.56161
        ([0, 1, 0, 0, 1], 4, 0.5, 1.0177825608059992 / 2.561606311644851, 0.5),
        # The right one stands in place 11, which none of the three looks at.
        ([0] * 10 + [1], 1, 0.0, 0.0, 0.0),
    ],
)
def test_measures_of_a_ranking_worked_out_by_hand(
    ranking: list[int], right: int, recall: float, ndcg: float, reciprocal: float
) -> None:
    assert evaluation.recall_at(ranking, right, 10) == pytest.approx(recall)
    assert evaluation.ndcg_at(ranking, right) == pytest.approx(ndcg)
    assert evaluation.reciprocal_rank(ranking) == pytest.approx(reciprocal)


def test_graded_gains_are_discounted_by_the_logarithm_of_their_place() -> None:
    # The first five places of the example of Jarvelin and Kekalainen (2002), with this module's discount.
    graded = [3, 2, 3, 0, 1]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, 6))
    told = evaluation.ndcg_at([gain / 3 for gain in graded], 5, 5) * ideal * 3
    assert told == pytest.approx(3 + 2 / math.log2(3) + 3 / 2 + 1 / math.log2(6))


@given(rankings, st.integers(1, 40))
def test_every_measure_is_a_share(ranking: list[int], right: int) -> None:
    right = max(right, sum(ranking))
    for value in (
        evaluation.recall_at(ranking, right, 10),
        evaluation.ndcg_at(ranking, right),
        evaluation.reciprocal_rank(ranking),
    ):
        assert 0.0 <= value <= 1.0


@given(rankings.filter(any), st.data())
def test_moving_a_right_one_up_never_makes_a_measure_worse(ranking: list[int], data: st.DataObject) -> None:
    right = sum(ranking)
    at = data.draw(st.sampled_from([place for place, gain in enumerate(ranking) if gain]))
    to = data.draw(st.integers(0, at))
    moved = ranking.copy()
    moved.insert(to, moved.pop(at))
    for measure in (
        lambda one: evaluation.recall_at(one, right, 10),
        lambda one: evaluation.ndcg_at(one, right),
        evaluation.reciprocal_rank,
    ):
        assert measure(moved) >= measure(ranking) - 1e-12


@given(st.integers(1, 30), st.integers(1, 10))
def test_a_ranking_with_all_the_right_ones_first_is_perfect(right: int, rest: int) -> None:
    ranking = [1] * right + [0] * rest
    assert evaluation.ndcg_at(ranking, right) == pytest.approx(1.0)
    assert evaluation.recall_at(ranking, right, 10) == pytest.approx(min(10 / right, 1.0))
    assert evaluation.reciprocal_rank(ranking) == 1.0


@pytest.mark.parametrize(
    ("values", "below", "expected"),
    [([], 0.5, 0.0), ([7.0], 0.95, 7.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.5), ([0.0, 10.0], 0.95, 9.5)],
)
def test_quantiles_of_small_cases(values: list[float], below: float, expected: float) -> None:
    assert evaluation.quantile(values, below) == pytest.approx(expected)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_the_values_and_repeats(values: list[float]) -> None:
    low, high = evaluation.interval(values, draws=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == evaluation.interval(values, draws=50)


def test_an_interval_of_a_coin_is_about_two_standard_errors_wide() -> None:
    low, high = evaluation.interval([0.0, 1.0] * 200)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)


def test_of_no_values_there_is_no_share_and_no_interval() -> None:
    assert evaluation.share([]) == evaluation.Share(None, None, None, 0)
    with pytest.raises(ValueError, match="no values"):
        evaluation.interval([])


# ---- what is right -------------------------------------------------------------------------------------------------


def test_a_document_counts_once_at_the_place_of_its_best_passage() -> None:
    hits = [hit("a"), hit("b"), hit("a"), hit("c"), hit("b")]
    labelled = Labelled(question="q", documents=["b", "id-c", "elsewhere"])
    assert evaluation.gains(labelled, hits) == ([0, 1, 1], 3)


def test_the_first_passage_that_holds_a_text_is_the_right_one() -> None:
    hits = [hit("a", "nothing"), hit("b", f"Before. {LONG.upper()}  After."), hit("c", LONG)]
    assert evaluation.gains(Labelled(question="q", texts=["absent", LONG]), hits) == ([0, 1, 0], 1)
    assert evaluation.gains(Labelled(question="q", answers=["25  nm"]), hits) == ([0, 1, 0], 1)


def test_a_passage_that_lies_in_a_text_is_right_unless_it_is_too_short_to_tell() -> None:
    labelled = Labelled(question="q", texts=[f"{LONG} {LONG}"])
    assert evaluation.gains(labelled, [hit("a", "25 Nm"), hit("b", LONG)]) == ([0, 1], 1)


@pytest.mark.parametrize(
    ("labelled", "answerable", "ranked"),
    [
        (Labelled(question="q"), None, False),
        (Labelled(question="q", documents=["a"]), True, True),
        (Labelled(question="q", answerable=False), False, False),
        (Labelled(question="q", answerable=True), True, False),
        (Labelled(question="q", documents=["a"], answerable=False), False, False),
    ],
)
def test_a_question_is_judged_by_what_is_said_of_it(labelled: Labelled, answerable: bool | None, ranked: bool) -> None:
    assert (labelled.is_answerable, labelled.is_ranked) == (answerable, ranked)


def test_scores_of_search_are_means_over_the_rankings_and_quantiles_over_all_times() -> None:
    scores = evaluation.score_search([([1], 1), ([0, 1], 1)], [0.001, 0.002, 0.003], 1)
    assert (scores.recall.value, scores.mrr.value, scores.recall.of) == (0.5, 0.75, 2)
    assert scores.ndcg.value == pytest.approx((1 + 1 / math.log2(3)) / 2, abs=1e-4)
    assert (scores.p50_ms, scores.p95_ms) == (2.0, 2.9)


@pytest.mark.parametrize(
    ("labelled", "right"),
    [
        (Labelled(question="q", answers=["low suction pressure"]), True),
        (Labelled(question="q", answers=["high voltage"]), False),
        (Labelled(question="q", documents=["pump.md"]), True),
        (Labelled(question="q", documents=["absent.md"]), False),
        (Labelled(question="q"), None),
    ],
)
def test_an_answer_is_right_where_a_quote_holds_what_is(labelled: Labelled, right: bool | None) -> None:
    judged = evaluation.judge(labelled, samples.ANSWER, verbatim=2, seconds=0.1)
    assert (judged.right, judged.grounded, judged.quotes, judged.verbatim) == (right, True, 2, 2)


def test_an_answer_that_was_declined_is_not_right_whatever_it_shows() -> None:
    shown = msgspec.structs.replace(samples.ANSWER, grounded=False)
    assert (
        evaluation.judge(Labelled(question="q", documents=["pump.md"]), shown, verbatim=2, seconds=0.1).right is False
    )


def test_scores_of_answers_keep_the_two_ways_of_declining_apart() -> None:
    def one(answerable: bool | None, grounded: bool, right: bool | None) -> evaluation.Judged:
        return evaluation.Judged(answerable, grounded, right, quotes=2, verbatim=1 + grounded, seconds=0.01)

    judged = [one(True, True, True), one(True, False, False), one(False, False, None), one(None, True, None)]
    scores = evaluation.score_answers(judged)
    assert (scores.grounded.value, scores.grounded.of) == (0.5, 4)
    assert (scores.declined.value, scores.declined_rightly.value, scores.declined_wrongly.value) == (0.5, 1.0, 0.5)
    assert (scores.right.value, scores.right.of) == (0.5, 2)
    assert (scores.verbatim.value, scores.verbatim.of) == (0.75, 8)


# ---- files ---------------------------------------------------------------------------------------------------------


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_lines_are_read_with_a_byte_order_mark_and_blank_lines_between(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + json.dumps({"question": "a", "documents": ["x"]}), "", {"question": "b"})
    assert evaluation.read_questions(path) == [Labelled(question="a", documents=["x"]), Labelled(question="b")]


def test_a_squad_file_gives_its_paragraphs_as_texts(tmp_path: Path) -> None:
    answered = {"question": "a", "is_impossible": False, "answers": [{"text": "y"}, {"text": "x"}, {"text": "y"}]}
    refused = {"question": "b", "is_impossible": True, "answers": []}
    told = {"version": "v2.0", "data": [{"paragraphs": [{"context": LONG, "qas": [answered, refused]}]}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(told, indent=1), "utf-8")
    assert evaluation.read_questions(path) == [
        Labelled(question="a", texts=[LONG], answers=["x", "y"], answerable=True),
        Labelled(question="b", answerable=False),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no question"),
        (["", " "], "holds no question"),
        ([{"question": "a"}, "no JSON"], "line 2"),
        ([{"question": "a"}, {"text": "b"}], "line 2"),
        ([{"question": "a", "document": "misspelt"}], "line 1"),
        ([{"question": "a", "documents": "x"}], "line 1"),
        ([{"question": " "}], "1 to 8000 characters"),
        ([{"question": "a" * 8001}], "1 to 8000 characters"),
        ([{"question": "a", "texts": ["x"], "answerable": False}], "not answerable"),
        ([{"data": [{"paragraphs": [{"qas": [{}]}]}]}], "looks like SQuAD"),
        ([{"data": ["x"]}], "looks like SQuAD"),
        (['["a"]'], "line 1"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_is_wrong(tmp_path: Path, lines: list[Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        evaluation.read_questions(write(tmp_path, *lines))


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff\xfe{")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    path = write(tmp_path, {"question": "a"})
    spoil(path)
    with pytest.raises(RequestError, match="cannot be read"):
        evaluation.read_questions(path)


@given(st.lists(st.builds(Labelled, question=st.text(min_size=1).filter(str.strip), documents=st.lists(st.text()))))
def test_what_is_written_as_lines_is_read_back(questions: Sequence[Labelled]) -> None:
    text = "\n".join(json.dumps(msgspec.to_builtins(one)) for one in questions)
    assert [msgspec.json.decode(line, type=Labelled) for line in text.split("\n") if line] == list(questions)

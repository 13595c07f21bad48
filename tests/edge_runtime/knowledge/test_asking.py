"""A question's whole way over a real index and embedder; the writer is one that tells the truth, lies, or dies."""

from __future__ import annotations

import pytest

from edge_runtime.errors import ContextLengthError, EdgeError, EngineError, PermissionDeniedError, RequestError
from edge_runtime.knowledge.answer import DECLINED
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge_protocol import Filter, Sentence
from tests.edge_runtime.knowledge.asked import GLAND, SAID, Dictated, an_index_of_manuals, ask, whole
from tests.edge_runtime.knowledge.conftest import LocalEmbedder

__all__ = ["an_index_of_manuals"]


def test_a_fact_is_answered_by_a_verbatim_cited_sentence(manual: Index, local_embedder: LocalEmbedder) -> None:
    steps = ask(manual, local_embedder, "What does alarm E17 mean?", mode="extract")
    answer = whole(steps)
    assert answer.grounded
    assert answer.route == "knowledge/quotes"
    assert "low suction pressure" in answer.answer
    for one in answer.citations:
        assert manual.text(one.document_id, one.locator.start, one.locator.end) == one.quote
        assert len(one.quote) <= 300


def test_a_procedure_is_answered_step_by_step(manual: Index, local_embedder: LocalEmbedder) -> None:
    steps = ask(manual, local_embedder, "How do I start pump P12?")
    said = [step.text for step in steps if isinstance(step, Sentence)]
    assert len(said) == 11
    assert said[1] == "2. Open suction valve V2 fully."


@pytest.mark.parametrize(
    "question", ["What was the purchase price of pump P12?", "who won the world cup", "how do you say hello in french"]
)
def test_what_the_documents_do_not_say_is_declined(
    manual: Index, local_embedder: LocalEmbedder, question: str
) -> None:  # fmt: skip
    answer = whole(ask(manual, local_embedder, question))
    assert not answer.grounded
    assert answer.answer == DECLINED
    assert answer.route == "knowledge/declined"


def test_an_empty_index_declines(index: Index, local_embedder: LocalEmbedder) -> None:
    answer = whole(ask(index, local_embedder, "What does alarm E17 mean?"))
    assert answer.answer == DECLINED
    assert answer.citations == []


def test_a_supported_phrase_is_shown_with_its_quote(manual: Index, local_embedder: LocalEmbedder) -> None:
    writer = Dictated(SAID)
    steps = ask(manual, local_embedder, GLAND, writer=writer)
    assert whole(steps).route == "knowledge/phrased"
    assert whole(steps).model == "dictated"
    assert [step.text for step in steps if isinstance(step, Sentence)] == [SAID]


def test_a_lie_is_replaced_by_the_quote(manual: Index, local_embedder: LocalEmbedder) -> None:
    answer = whole(ask(manual, local_embedder, GLAND, writer=Dictated("The gland bolts need 95 Nm.")))
    assert answer.route == "knowledge/quotes"
    assert "95" not in answer.answer
    assert "25 Nm" in answer.answer


def test_a_true_sentence_survives_the_lie_beside_it(manual: Index, local_embedder: LocalEmbedder) -> None:
    writer = Dictated(f"{SAID} They were made in 1066.")
    assert whole(ask(manual, local_embedder, GLAND, writer=writer)).answer == SAID


def test_a_sentence_cut_off_by_the_token_limit_is_not_shown(manual: Index, local_embedder: LocalEmbedder) -> None:
    writer = Dictated("The gland bolts of pump P12 need", reason="length")
    assert whole(ask(manual, local_embedder, GLAND, writer=writer)).route == "knowledge/quotes"


@pytest.mark.parametrize("fails", [EngineError("it died"), ContextLengthError("too long"), RequestError("no template")])
def test_a_writer_that_fails_costs_the_phrasing_not_the_answer(
    manual: Index, local_embedder: LocalEmbedder, fails: EdgeError
) -> None:
    answer = whole(ask(manual, local_embedder, GLAND, writer=Dictated("Well", fails=fails)))
    assert "25 Nm" in answer.answer


def test_a_writer_that_is_too_slow_costs_the_phrasing_not_the_answer(
    manual: Index, local_embedder: LocalEmbedder
) -> None:
    answer = whole(ask(manual, local_embedder, GLAND, writer=Dictated(SAID, waits=60.0), phrase_seconds=0.05))
    assert answer.route == "knowledge/quotes"
    assert "25 Nm" in answer.answer


def test_the_writer_is_not_asked_in_extract_mode_nor_for_what_is_declined(
    manual: Index, local_embedder: LocalEmbedder
) -> None:
    writer = Dictated("Anything.")
    ask(manual, local_embedder, GLAND, writer=writer, mode="extract")
    ask(manual, local_embedder, "who won the world cup", writer=writer)
    assert writer.prompts == []


def test_one_who_may_not_read_the_collection_gets_nothing(manual: Index, local_embedder: LocalEmbedder) -> None:
    with pytest.raises(PermissionDeniedError):
        ask(manual, local_embedder, GLAND, reader=Reader(uid=1234), collection="private")
    assert whole(ask(manual, local_embedder, GLAND, reader=Reader(uid=4321), collection="private")).grounded


def test_a_filter_leaves_only_what_passes_it(manual: Index, local_embedder: LocalEmbedder) -> None:
    manuals, overview = (Filter(documents=[name]) for name in ("pump-p12-manual.md", "station-overview.md"))
    assert whole(ask(manual, local_embedder, GLAND, within=manuals)).grounded
    narrowed = whole(ask(manual, local_embedder, GLAND, within=overview))
    assert {one.document for one in narrowed.citations} == {"station-overview.md"}
    assert "25 Nm" not in narrowed.answer
    nothing = whole(ask(manual, local_embedder, GLAND, within=Filter(documents=["no such document"])))
    assert (nothing.answer, nothing.citations) == (DECLINED, [])

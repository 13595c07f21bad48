"""A question's whole way over a real index and embedder; the writer is one that tells the truth, lies, or dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest

from edge_runtime.engine.messages import Done, Params, Token
from edge_runtime.errors import ContextLengthError, EdgeError, EngineError, PermissionDeniedError, RequestError
from edge_runtime.knowledge.answer import DECLINED
from edge_runtime.knowledge.asking import Asker, Question, Step
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.ingest import ingest
from edge_runtime.knowledge_protocol import Answer, AskMode, Sentence, Sources
from tests.edge_runtime.knowledge.conftest import LocalEmbedder

SAMPLES = Path(__file__).parents[3] / "edge_runtime" / "samples" / "documents"
SAID = "The gland bolts of pump P12 are tightened to 25 Nm."
GLAND = "What torque do the gland bolts of pump P12 need?"


class Dictated:
    """A writer whose words the test chooses: the check must hold whatever a model says."""

    name = "dictated"

    def __init__(self, said: str, *, reason: str = "stop", fails: EdgeError | None = None, waits: float = 0.0) -> None:
        self._said = said
        self._reason = reason
        self._fails = fails
        self._waits = waits
        self.prompts: list[Sequence[tuple[str, str]]] = []

    async def chat(
        self, messages: Sequence[tuple[str, str]], params: Params, *, seconds: float
    ) -> AsyncGenerator[Token | Done, None]:
        self.prompts.append(messages)
        await asyncio.sleep(self._waits)
        for at, word in enumerate(self._said.split(" ")):
            yield Token(id="t", text=word if at == 0 else f" {word}", tokens=at + 1)
        if self._fails is not None:
            raise self._fails
        yield Done(
            id="t",
            reason=self._reason,  # type: ignore[arg-type]
            prompt_tokens=1,
            completion_tokens=1,
            cached_tokens=0,
            prefill_ms=0,
            decode_ms=0,
        )


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory, local_embedder: LocalEmbedder) -> Iterator[Index]:
    """Two sample documents for all who may ask, and the same for one user alone."""
    opened = Index.open(tmp_path_factory.mktemp("asking") / "index.db", embedder="test")
    opened.set_collection("private", uids=[4321])
    for name in ("pump-p12-manual.md", "station-overview.md"):
        content = (SAMPLES / name).read_bytes()
        asyncio.run(ingest(opened, local_embedder, name, content, "default", Limits()))
    gland = b"The gland bolts of pump P12 are tightened to 25 Nm."
    asyncio.run(ingest(opened, local_embedder, "gland.txt", gland, "private", Limits()))
    yield opened
    opened.close()


def ask(
    index: Index,
    embedder: LocalEmbedder,
    text: str,
    *,
    writer: Dictated | None = None,
    mode: AskMode = "auto",
    reader: Reader | None = None,
    collection: str = "default",
    phrase_seconds: float = 60.0,
) -> list[Step]:
    async def steps() -> list[Step]:
        asker = Asker(index, embedder, confidence=0.5, phrase_seconds=phrase_seconds)
        question = Question(
            id="q",
            text=text,
            collection=collection,
            mode=mode,
            sensitivity="internal",
            reader=reader,
            writer=writer,
        )
        return [step async for step in asker.ask(question)]

    return asyncio.run(steps())


def whole(steps: list[Step]) -> Answer:
    assert isinstance(steps[0], Sources)
    last = steps[-1]
    assert isinstance(last, Answer)
    return last


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

"""A question put to a real index and embedder, and a writer whose words the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest

from edge_runtime.engine.messages import Done, Params, Token
from edge_runtime.errors import EdgeError
from edge_runtime.knowledge.asking import Asker, Question, Step
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge_protocol import Answer, AskMode, Assembly, Filter, Sentence, Sources
from tests.edge_runtime.knowledge.conftest import LocalEmbedder, ingest

SAMPLES = Path(__file__).parents[3] / "edge_runtime" / "samples" / "documents"
SAID = "The gland bolts of pump P12 are tightened to 25 Nm."
GLAND = "What torque do the gland bolts of pump P12 need?"


class Dictated:
    """A writer whose words the test chooses: the check must hold whatever a model says."""

    name = "dictated"
    context = 4096

    def count(self, text: str) -> int:
        return len(text) // 3

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


@pytest.fixture(scope="module", name="manual")
def an_index_of_manuals(tmp_path_factory: pytest.TempPathFactory, local_embedder: LocalEmbedder) -> Iterator[Index]:
    """Two sample documents for all who may ask, and the same for one user alone."""
    opened = Index.open(tmp_path_factory.mktemp("asking") / "index.db", embedder="test")
    opened.set_collection("private", uids=[4321])
    for name in ("pump-p12-manual.md", "station-overview.md"):
        content = (SAMPLES / name).read_bytes()
        asyncio.run(ingest(local_embedder.intake(opened), name, content))
    gland = b"The gland bolts of pump P12 are tightened to 25 Nm."
    asyncio.run(ingest(local_embedder.intake(opened), "gland.txt", gland, "private"))
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
    assembly: Assembly = "auto",
    within: Filter | None = None,
    seconds: float | None = None,
    phrase_seconds: float = 60.0,
    read_seconds: float = 60.0,
) -> list[Step]:
    async def steps() -> list[Step]:
        asker = Asker(index, embedder, confidence=0.5, phrase_seconds=phrase_seconds, read_seconds=read_seconds)
        question = Question(
            id="q",
            text=text,
            collection=collection,
            mode=mode,
            assembly=assembly,
            filter=within,
            seconds=seconds,
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


def sentences(steps: list[Step]) -> list[Sentence]:
    return [step for step in steps if isinstance(step, Sentence)]

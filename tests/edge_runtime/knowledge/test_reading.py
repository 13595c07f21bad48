"""Documents are embedded as passages, and a question as a query: some models read the two differently."""

from __future__ import annotations

import asyncio

from edge_runtime.knowledge.asking import Asker, Question
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.embedder import TextKind, Vectors
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.ingest import Intake
from tests.edge_runtime.knowledge.conftest import LocalEmbedder, ingest

QUESTION = "What torque do the gland bolts of pump P12 need?"


class Noted:
    """The real embedder; ``kinds`` says what each text was embedded as."""

    def __init__(self, embedder: LocalEmbedder) -> None:
        self._embedder = embedder
        self.kinds: dict[str, TextKind] = {}

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        self.kinds.update(dict.fromkeys(texts, kind))
        return await self._embedder.embed(texts, pool=pool, kind=kind)


def test_a_question_is_a_query_and_what_is_added_are_passages(index: Index, local_embedder: LocalEmbedder) -> None:
    noted = Noted(local_embedder)
    said = b"The gland bolts of pump P12 are tightened to 25 Nm. The valve stays closed."
    question = Question(id="q", text=QUESTION, collection="default", mode="extract", sensitivity="internal")

    async def steps() -> int:
        await ingest(Intake(index, noted, Limits(), read=local_embedder.read), "gland.txt", said)
        return len([step async for step in Asker(index, noted, confidence=0.1).ask(question)])

    assert asyncio.run(steps()) >= 2
    assert noted.kinds.pop(QUESTION) == "query"
    assert set(noted.kinds.values()) == {"passage"}

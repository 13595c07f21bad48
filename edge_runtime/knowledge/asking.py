"""One question's way: embed, search, weigh; then quotes, a phrased and checked answer, or "the documents do not say".

Knows the order of things and nothing of sockets: index, embedder and writer are handed in.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.engine.messages import Done, Params, Token
from edge_runtime.errors import BusyError, DeadlineError, EngineError, RequestError
from edge_runtime.knowledge.answer import DECLINED, Cited, extract, phrase_prompt, supports
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.embedder import Embedder
from edge_runtime.knowledge.evidence import QUOTE_CHARS, Evidence, Quote, weigh
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.passages import gather
from edge_runtime.knowledge.search import search
from edge_runtime.knowledge.words import Asked, understand
from edge_runtime.knowledge_protocol import Answer, AskMode, Citation, Locator, Sentence, Sources
from edge_runtime.protocol import Sensitivity

PASSAGES = 12
PHRASE_TOKENS = 64
PHRASE_SECONDS = 3.0  # the writer's time; after it the quote stands as it is
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n+")


class Writer(Protocol):
    """What phrases an answer, on behalf of whoever asks: the engine with its chat template."""

    @property
    def name(self) -> str: ...

    def chat(
        self, messages: Sequence[tuple[str, str]], params: Params, *, seconds: float
    ) -> AsyncGenerator[Token | Done, None]:
        """The next message, for a caller that waits at most so long."""


Step = Sources | Sentence | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    id: str
    text: str
    collection: str
    mode: AskMode
    sensitivity: Sensitivity
    reader: Reader | None = None  # None: may read everything (an administrator)
    writer: Writer | None = None  # None: answers are quotes alone


class Asker:
    """Answers questions from one index."""

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        *,
        confidence: float,
        phrase_seconds: float = PHRASE_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._threshold = confidence
        self._phrase_seconds = phrase_seconds
        self._clock = clock

    async def ask(self, question: Question) -> AsyncGenerator[Step, None]:
        """Yields ``Sources``, then each verified ``Sentence``, then the whole ``Answer``."""
        watch = _Watch(self._clock)
        asked = understand(question.text)
        evidence = await self._evidence(question, asked, watch)
        if not evidence.quotes or evidence.confidence < self._threshold:
            nearest = [citation(quote) for quote in evidence.quotes]
            yield Sources(id=question.id, citations=nearest)
            yield self._answer(question, [DECLINED], nearest, evidence, watch, grounded=False)
            return
        draft = extract(asked, evidence)
        citations = [citation(quote) for quote in draft.quotes]
        yield Sources(id=question.id, citations=citations)
        said: list[str] = []
        phrased = False
        if question.mode == "auto" and question.writer is not None and len(draft.sentences) == 1:
            async with aclosing(self._phrase(asked, draft.quotes[0], question.writer)) as sentences:
                async for cited in sentences:
                    watch.first()
                    phrased = True
                    said.append(cited.text)
                    yield Sentence(text=cited.text, citations=list(cited.quotes))
        if not said:
            for cited in draft.sentences:
                watch.first()
                said.append(cited.text)
                yield Sentence(text=cited.text, citations=list(cited.quotes))
        yield self._answer(question, said, citations, evidence, watch, grounded=True, phrased=phrased)

    async def _evidence(self, question: Question, asked: Asked, watch: _Watch) -> Evidence:
        embedded = await self._embedder.embed([question.text], kind="query")
        vector = embedded.rows[0][0]
        watch.lap("embed")

        def look() -> Evidence:
            found = search(
                self._index,
                question.text,
                vector,
                collection=question.collection,
                mode="hybrid",
                k=PASSAGES,
                readers=question.reader,
            )
            watch.lap("search")
            return weigh(asked, vector, gather(self._index, found))

        evidence = await asyncio.to_thread(look)
        watch.lap("weigh")
        return evidence

    async def _phrase(self, asked: Asked, quote: Quote, writer: Writer) -> AsyncGenerator[Cited, None]:
        """The writer's sentences, as soon as each is whole, and only where the quote supports it.

        The quote is at hand all the while: a writer that is slow, busy, dead or too small for it costs the phrasing,
        not the answer.
        """
        prompt, params = phrase_prompt(asked.text, quote), Params(max_tokens=PHRASE_TOKENS, temperature=0.0)
        buffer, end = "", self._clock() + self._phrase_seconds
        try:
            async with aclosing(writer.chat(prompt, params, seconds=self._phrase_seconds)) as stream:
                while True:
                    step = await asyncio.wait_for(anext(stream), max(end - self._clock(), 0.0))
                    if isinstance(step, Token):
                        buffer += step.text
                    *whole, buffer = _SENTENCE_END.split(buffer)
                    if isinstance(step, Done) and step.reason == "stop":
                        whole, buffer = [*whole, buffer], ""
                    for sentence in whole:
                        if supports(asked, quote, sentence):
                            yield Cited(sentence.strip(), (0,))
        except (EngineError, BusyError, DeadlineError, RequestError, TimeoutError, StopAsyncIteration):
            return

    def _answer(
        self, question: Question, said: Sequence[str], citations: list[Citation], evidence: Evidence, watch: _Watch,
        *, grounded: bool, phrased: bool = False,
    ) -> Answer:  # fmt: skip
        return Answer(
            id=question.id,
            status="done",
            answer="\n".join(said) if len(said) > 1 else "".join(said),
            citations=citations,
            grounded=grounded,
            route="knowledge/phrased" if phrased else ("knowledge/quotes" if grounded else "knowledge/declined"),
            sensitivity=question.sensitivity,
            model=question.writer.name if phrased and question.writer else None,
            cached_age_s=None,
            timings_ms=watch.report(),
            confidence=round(evidence.confidence, 4),
        )


class _Watch:
    """Milliseconds of each part of a question's way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = self._last = clock()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = self._clock()
        self._laps[name] = round(1e3 * (now - self._last), 2)
        self._last = now

    def first(self) -> None:
        """The first verified sentence is there: the time to first token of an answer."""
        self._laps.setdefault("first_sentence", round(1e3 * (self._clock() - self._start), 2))

    def report(self) -> dict[str, float]:
        return {**self._laps, "total": round(1e3 * (self._clock() - self._start), 2)}


def citation(quote: Quote) -> Citation:
    """A quote as the wire knows it: cut to ``QUOTE_CHARS``, and still verbatim."""
    passage = quote.passage
    end = min(quote.end, quote.start + QUOTE_CHARS)
    return Citation(
        document=passage.document,
        document_id=passage.document_id,
        locator=Locator(start=quote.start, end=end, page=passage.page, heading=passage.heading),
        quote=quote.text[:QUOTE_CHARS],
    )

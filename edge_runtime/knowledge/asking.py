"""One question's way: embed, search, weigh; then quotes, a phrased and checked answer, or "the documents do not say".

Knows the order of things and nothing of sockets: index, embedder and writer are handed in.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from edge_runtime.knowledge.answer import DECLINED, Cited, readable
from edge_runtime.knowledge.assembly import Plan, choose, spot
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.draft import Look, Outline, compose
from edge_runtime.knowledge.embedder import Embedder
from edge_runtime.knowledge.evidence import QUOTE_CHARS, Passage, Quote, weigh
from edge_runtime.knowledge.extent import Extent, Kind, measure
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.passages import gather
from edge_runtime.knowledge.records import Matrix
from edge_runtime.knowledge.search import search
from edge_runtime.knowledge.several import bearings
from edge_runtime.knowledge.words import understand
from edge_runtime.knowledge.writing import Desk, Writer
from edge_runtime.knowledge_protocol import Answer, AskMode, Assembly, Citation, Filter, Locator, Sentence, Sources
from edge_runtime.protocol import Sensitivity

PASSAGES = 12
PASSAGES_OF_SEVERAL = 24
PHRASE_SECONDS = 3.0  # the writer's time; after it the quote stands as it is
READ_SECONDS = 20.0  # the same for reading passages
_RESERVE = 0.25  # seconds before a deadline when the writer is left, so that there is an answer within it
DECLINED_ROUTE = "knowledge/declined"

Step = Sources | Sentence | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    id: str
    text: str
    collection: str
    mode: AskMode
    sensitivity: Sensitivity
    assembly: Assembly = "auto"
    filter: Filter | None = None
    seconds: float | None = None  # until there must be an answer; None: no deadline
    reader: Reader | None = None  # None: may read everything (an administrator)
    writer: Writer | None = None  # None: answers are quotes alone

    @property
    def pen(self) -> Writer | None:
        """Who may write for it, if anybody."""
        return self.writer if self.mode == "auto" else None

    @property
    def is_read(self) -> bool:
        """Whether the writer is to read passages, whatever they are."""
        return self.assembly != "auto" and self.pen is not None


class Asker:
    """Answers questions from one index; ``turns`` bounds how many look into it at once."""

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        *,
        confidence: float,
        phrase_seconds: float = PHRASE_SECONDS,
        read_seconds: float = READ_SECONDS,
        turns: asyncio.Semaphore | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._threshold = confidence
        self._phrase_seconds = phrase_seconds
        self._read_seconds = read_seconds
        self._turns = turns or asyncio.Semaphore(1)
        self._clock = clock

    async def ask(self, question: Question) -> AsyncGenerator[Step, None]:
        """Yields ``Sources``, then each verified ``Sentence``, then the whole ``Answer``."""
        watch = _Watch(self._clock)
        extent = measure(question.text)
        looks = await self._look(question, extent, watch)
        outline = compose(extent, looks, confidence=self._threshold)
        if outline is None:
            nearest = [citation(quote) for quote in looks[0].evidence.quotes]
            yield Sources(id=question.id, citations=nearest)
            said = _Said(sentences=[Cited(DECLINED, ())])
            yield _answer(question, said, nearest, looks[0].evidence.confidence, watch, route=DECLINED_ROUTE)
            return
        plan = self._plan(question, extent, looks, outline)
        quotes = outline.quotes if plan else outline.quotes[: outline.sure]
        citations = [citation(quote) for quote in quotes]
        yield Sources(id=question.id, citations=citations)
        said = _Said() if question.seconds is None else _Said(watch.start + question.seconds - _RESERVE)
        async with aclosing(self._say(question, looks[0], outline, plan, said)) as sentences:
            async for cited in sentences:
                watch.first()
                said.sentences.append(cited)
                yield Sentence(text=cited.text, citations=list(cited.quotes))
        if said.calls:
            watch.lap("write")
        cited_at = sorted({at for cited in said.sentences for at in cited.quotes})
        shown = [citations[at] for at in cited_at]
        yield _answer(question, said, shown, outline.confidence, watch, route=said.route)

    async def _look(self, question: Question, extent: Extent, watch: _Watch) -> list[Look]:
        """At the whole question, and at each of its parts."""
        async with self._turns:
            embedded = await self._embedder.embed([extent.whole, *extent.parts], kind="query")
            watch.lap("embed")
            vectors = [rows[0] for rows in embedded.rows]
            texts = [extent.whole, *extent.parts]
            kinds = [extent.kind, *(measure(part).kind for part in extent.parts)]

            def look() -> list[Look]:
                return [
                    self._find(question, text, vector, kind, watch)
                    for text, vector, kind in zip(texts, vectors, kinds, strict=True)
                ]

            return await asyncio.to_thread(look)

    def _find(self, question: Question, text: str, vector: Matrix, kind: Kind, watch: _Watch) -> Look:
        asked = understand(text)
        several = kind in ("list", "summary") or question.is_read
        found = search(
            self._index,
            text,
            vector,
            collection=question.collection,
            mode="hybrid",
            k=PASSAGES_OF_SEVERAL if several else PASSAGES,
            readers=question.reader,
            filter=question.filter,
        )
        watch.lap("search")
        passages = gather(self._index, found)
        # Of what is weighed the confidence was calibrated for so many.
        evidence = weigh(asked, vector, passages[:PASSAGES])
        bear = bearings(asked, vector, passages, summary=kind == "summary") if several else ()
        watch.lap("weigh")
        return Look(asked, evidence, kind, bear, tuple(passages))

    def _plan(self, question: Question, extent: Extent, looks: Sequence[Look], outline: Outline) -> Plan | None:
        """What the writer is to read, where there is one and something is open, or reading was asked for."""
        writer = question.pen
        is_open = len(outline.quotes) > outline.sure
        if writer is None or not writer.context or not (is_open or question.is_read):
            return None
        wanted: Iterable[Passage] = (quote.passage for quote in outline.quotes[outline.sure :])
        if question.is_read:
            wanted = (passage for look in looks for passage in look.passages[:PASSAGES])
        passages = {spot(passage): passage for passage in wanted}
        return choose(
            question.assembly,
            list(passages.values()),
            question.text,
            context=writer.context,
            count=writer.count,
            summary=extent.kind == "summary",
        )

    async def _say(
        self, question: Question, look: Look, outline: Outline, plan: Plan | None, said: _Said
    ) -> AsyncGenerator[Cited, None]:
        """The sentences of an answer; ``said`` learns what the writer did for them."""
        if question.pen is None:
            for cited in outline.sentences:
                yield cited
            return
        end = self._clock() + (self._phrase_seconds if plan is None else self._read_seconds)
        desk = Desk(question.pen, question.text, min(end, said.end), self._clock)
        try:
            if plan is None and len(outline.sentences) == 1 and outline.sentences[0].quotes:
                async with aclosing(desk.phrase(look.asked, outline.quotes[0])) as phrases:
                    async for cited in phrases:
                        said.phrased = True
                        yield cited
            if not said.phrased:
                for cited in outline.sentences:
                    yield cited
            if plan is not None:
                said.assembly = plan.assembly
                known, still_open = outline.quotes[: outline.sure], outline.quotes[outline.sure :]
                async with aclosing(desk.read(look.asked, plan, still_open, known)) as found:
                    async for at in found:
                        yield Cited(readable(still_open[at].text), (outline.sure + at,))
        finally:
            said.calls = desk.calls


@dataclass(slots=True)
class _Said:
    """What was said so far, what the writer did for it, and until when it may (of the clock)."""

    end: float = math.inf
    sentences: list[Cited] = field(default_factory=list)
    phrased: bool = False
    assembly: Assembly | None = None
    calls: int = 0

    @property
    def route(self) -> str:
        return "knowledge/phrased" if self.phrased else "knowledge/quotes"


def _answer(
    question: Question, said: _Said, citations: list[Citation], confidence: float, watch: _Watch, *, route: str
) -> Answer:  # fmt: skip
    return Answer(
        id=question.id,
        status="done",
        answer="\n".join(cited.text for cited in said.sentences),
        citations=citations,
        grounded=route != DECLINED_ROUTE,
        route=route,
        sensitivity=question.sensitivity,
        model=question.writer.name if said.phrased and question.writer else None,
        cached_age_s=None,
        timings_ms=watch.report(),
        confidence=round(confidence, 4),
        assembly=said.assembly,
        calls=said.calls,
    )


class _Watch:
    """Milliseconds of each part of a question's way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.start = self._last = clock()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What was done since the last lap was ``name``, perhaps once more."""
        now = self._clock()
        self._laps[name] = round(self._laps.get(name, 0.0) + 1e3 * (now - self._last), 2)
        self._last = now

    def first(self) -> None:
        """The first verified sentence is there: the time to first token of an answer."""
        self._laps.setdefault("first_sentence", round(1e3 * (self._clock() - self.start), 2))

    def report(self) -> dict[str, float]:
        return {**self._laps, "total": round(1e3 * (self._clock() - self.start), 2)}


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

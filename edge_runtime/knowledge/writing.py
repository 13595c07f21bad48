"""What a writer is asked for an answer, and what of its words counts: a phrase that a quote supports, or a choice.

The quotes are at hand all the while: a writer that is slow, busy, dead or too small for it costs the phrasing and the
choice, never the answer. Knows no socket: the writer is handed in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from edge_runtime.engine.messages import Done, Params, Token
from edge_runtime.errors import BusyError, DeadlineError, EngineError, RequestError
from edge_runtime.knowledge.answer import Cited, phrase_prompt, supports
from edge_runtime.knowledge.assembly import READ_TOKENS, Plan, reading_prompt, spoken_for, spot
from edge_runtime.knowledge.evidence import Passage, Quote
from edge_runtime.knowledge.words import Asked

PHRASE_TOKENS = 64
AT_ONCE = 3  # passages that are read side by side
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n+")
_LINE_END = re.compile(r"\n+")
_FAILURES = (EngineError, BusyError, DeadlineError, RequestError, TimeoutError, StopAsyncIteration)


class Writer(Protocol):
    """What reads and phrases, on behalf of whoever asks: the engine with its chat template."""

    @property
    def name(self) -> str: ...

    @property
    def context(self) -> int:
        """Tokens that it can have before it at once; 0: it is not there."""

    def count(self, text: str) -> int:
        """Tokens of ``text``, reckoned."""

    def chat(
        self, messages: Sequence[tuple[str, str]], params: Params, *, seconds: float
    ) -> AsyncGenerator[Token | Done, None]:
        """The next message, for a caller that waits at most so long."""


@dataclass(slots=True)
class Desk:
    """One question's dealings with a writer until ``end`` (of ``clock``, in seconds); ``calls`` counts them."""

    writer: Writer
    question: str
    end: float
    clock: Callable[[], float]
    calls: int = field(default=0, init=False)

    async def phrase(self, asked: Asked, quote: Quote) -> AsyncGenerator[Cited, None]:
        """The writer's sentences, as soon as each is whole, and only where the quote supports it."""
        prompt = phrase_prompt(self.question, quote)
        async with aclosing(self._pieces(prompt, PHRASE_TOKENS, _SENTENCE_END)) as sentences:
            async for sentence in sentences:
                if supports(asked, quote, sentence):
                    yield Cited(sentence.strip(), (0,))

    async def read(
        self, asked: Asked, plan: Plan, quotes: Sequence[Quote], known: Sequence[Quote] = ()
    ) -> AsyncGenerator[int, None]:
        """Which of ``quotes`` the writer speaks for, as it does; ``known`` are part of the answer already."""
        told: set[int] = set()
        if plan.assembly == "map-reduce":
            reading = self._mapped(asked, plan, quotes)
        else:
            reading = self._one_by_one(asked, plan, quotes, known)
        async with aclosing(reading) as found:
            async for at in found:
                if at not in told:
                    told.add(at)
                    yield at

    async def _one_by_one(
        self, asked: Asked, plan: Plan, quotes: Sequence[Quote], known: Sequence[Quote]
    ) -> AsyncGenerator[int, None]:
        so_far = list(known) if plan.assembly == "refine" else []
        for group in plan.groups:
            async with aclosing(self._heard(asked, group, quotes, so_far)) as found:
                async for at in found:
                    if plan.assembly == "refine":
                        so_far.append(quotes[at])
                    yield at

    async def _mapped(self, asked: Asked, plan: Plan, quotes: Sequence[Quote]) -> AsyncGenerator[int, None]:
        """Several passages at once: the engine reads them in one batch. What each speaks for is joined."""
        places = asyncio.Semaphore(AT_ONCE)
        heard: asyncio.Queue[int | None] = asyncio.Queue()

        async def look(group: Sequence[Passage]) -> None:
            try:
                async with places, aclosing(self._heard(asked, group, quotes, ())) as found:
                    async for at in found:
                        heard.put_nowait(at)
            finally:
                heard.put_nowait(None)

        tasks = [asyncio.ensure_future(look(group)) for group in plan.groups]
        try:
            left = len(tasks)
            while left:
                at = await heard.get()
                if at is None:
                    left -= 1
                else:
                    yield at
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _heard(
        self, asked: Asked, group: Sequence[Passage], quotes: Sequence[Quote], so_far: Sequence[Quote]
    ) -> AsyncGenerator[int, None]:
        """Which quotes of ``group`` the writer speaks for; a passage lends its voice to its own sentences alone."""
        spots = {spot(passage) for passage in group}
        own = [at for at, quote in enumerate(quotes) if spot(quote.passage) in spots]
        prompt = reading_prompt(group, self.question, so_far)
        async with aclosing(self._pieces(prompt, READ_TOKENS, _LINE_END)) as lines:
            async for line in lines:
                at = spoken_for(asked, [quotes[one] for one in own], line)
                if at is not None:
                    yield own[at]

    async def _pieces(
        self, prompt: Sequence[tuple[str, str]], tokens: int, cut: re.Pattern[str]
    ) -> AsyncGenerator[str, None]:
        """What the writer says, piece by whole piece; it ends early where the writer fails or the time is up."""
        left = self.end - self.clock()
        if left <= 0:
            return
        self.calls += 1
        params, buffer = Params(max_tokens=tokens, temperature=0.0), ""
        try:
            async with aclosing(self.writer.chat(prompt, params, seconds=left)) as stream:
                while True:
                    step = await asyncio.wait_for(anext(stream), max(self.end - self.clock(), 0.0))
                    if isinstance(step, Token):
                        buffer += step.text
                    *whole, buffer = cut.split(buffer)
                    if isinstance(step, Done) and step.reason == "stop":
                        whole, buffer = [*whole, buffer], ""
                    for piece in whole:
                        yield piece
        except _FAILURES:
            return

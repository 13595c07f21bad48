"""Keeps the embedder busy: full requests out of the texts of all documents that are on their way.

Embeds; knows neither documents nor what is known already.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_runtime.knowledge.embedder import Embedder, Vectors
from edge_runtime.knowledge.records import EmbeddedChunk

TEXTS = 64
CHARACTERS = 16_384  # of a request: the child splits it into tokens in one go, and a question waits for that
AT_ONCE = 2  # requests: one is computed while the other waits


@dataclass(slots=True, eq=False)
class _Order:
    """The texts of one document; ``done`` when each has its vectors."""

    texts: Sequence[str]
    found: dict[int, EmbeddedChunk]
    done: asyncio.Future[None]
    waiting: list[int]  # places of texts, the longest last; also such as went with another document's request
    sent: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self.texts)

    def longest(self) -> int | None:
        """The longest text that is still to be sent."""
        while self.waiting and self.waiting[-1] in self.sent:
            self.waiting.pop()
        return self.waiting[-1] if self.waiting and not self.done.done() else None


Flight = list[tuple[_Order, int]]


@dataclass(slots=True, eq=False)
class Feed:
    """A request begins with a text of the document that came first, and is filled up with those next to it in length,
    whosever they are: the child pads a batch to its longest."""

    embedder: Embedder
    at_once: int = AT_ONCE
    _orders: dict[int, _Order] = field(default_factory=dict)  # by number, in which they came
    _count: int = 0
    _waiting: list[tuple[int, int, int]] = field(default_factory=list)  # length, number, place; sorted
    _flights: dict[asyncio.Task[Vectors], Flight] = field(default_factory=dict)

    async def embed(self, texts: Sequence[str]) -> list[EmbeddedChunk]:
        """The windows of each text. Cancelled, it stops the work that is for nobody else.

        Raises:
            EngineError: the embedder is not there.
        """
        if not texts:
            return []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        by_length = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        order = _Order(texts, {}, done, by_length)
        self._count += 1
        self._orders[self._count] = order
        self._waiting += [(len(texts[at]), self._count, at) for at in by_length]
        self._waiting.sort()
        self._launch()
        try:
            await done
        except asyncio.CancelledError:
            self._forget()
            self._stop()
            raise
        return [order.found[at] for at in range(len(texts))]

    def _launch(self) -> None:
        while len(self._flights) < self.at_once and (taken := self._take()):
            work = self.embedder.embed([order.texts[at] for order, at in taken], pool=False)
            flight = asyncio.ensure_future(work)
            self._flights[flight] = taken
            flight.add_done_callback(self._land)

    def _take(self) -> Flight:
        first = next(((number, at) for number, one in self._orders.items() if (at := one.longest()) is not None), None)
        if first is None:
            return []
        number, at = first
        low = bisect_left(self._waiting, (len(self._orders[number].texts[at]), number, at))
        high = low + 1
        characters = self._waiting[low][0]
        while high - low < TEXTS and high - low < len(self._waiting):
            # Shorter ones first; longer ones where there are no more of those.
            following = self._waiting[low - 1 if low else high][0]
            if characters + following > CHARACTERS:
                break
            characters += following
            low, high = (low - 1, high) if low else (low, high + 1)
        taken = [(self._orders[number], at) for _, number, at in self._waiting[low:high]]
        del self._waiting[low:high]
        for order, place in taken:
            order.sent.add(place)
        return taken

    def _land(self, flight: asyncio.Task[Vectors]) -> None:
        taken = self._flights.pop(flight)
        if flight.cancelled():
            for order, _ in taken:
                order.done.cancel()
        elif (error := flight.exception()) is not None:
            for order, _ in taken:
                if not order.done.done():
                    order.done.set_exception(error)
        else:
            vectors = flight.result()
            for (order, at), rows, spans in zip(taken, vectors.rows, vectors.spans, strict=True):
                order.found[at] = EmbeddedChunk(rows, spans)
                if order.complete and not order.done.done():
                    order.done.set_result(None)
        self._forget()
        self._launch()

    def _forget(self) -> None:
        """Let go of documents that are complete, or given up."""
        over = [number for number, order in self._orders.items() if order.done.done()]
        given_up = {number for number in over if not self._orders[number].complete}
        for number in over:
            del self._orders[number]
        if given_up:
            self._waiting = [one for one in self._waiting if one[1] not in given_up]

    def _stop(self) -> None:
        """Stop the requests for which nobody waits any more."""
        for flight, taken in self._flights.items():
            if all(order.done.done() for order, _ in taken):
                flight.cancel()

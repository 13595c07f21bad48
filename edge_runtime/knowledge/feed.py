"""Keeps the embedder busy: full requests out of the texts of all documents that are on their way.

Embeds; knows neither documents nor what is known already.
"""

from __future__ import annotations

import asyncio
from collections import deque
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


@dataclass(slots=True, eq=False)
class Feed:
    """First come, first served; what is left of a request is filled up with the texts of those who came later."""

    embedder: Embedder
    at_once: int = AT_ONCE
    _waiting: deque[tuple[_Order, int]] = field(default_factory=deque)
    _flights: dict[asyncio.Task[Vectors], list[tuple[_Order, int]]] = field(default_factory=dict)

    async def embed(self, texts: Sequence[str]) -> list[EmbeddedChunk]:
        """The windows of each text. Cancelled, it stops the work that is for nobody else.

        Raises:
            EngineError: the embedder is not there.
        """
        if not texts:
            return []
        order = _Order(texts, {}, asyncio.get_running_loop().create_future())
        # Neighbours of like length: the child pads a batch to its longest.
        by_length = sorted(range(len(texts)), key=lambda at: len(texts[at]), reverse=True)
        self._waiting.extend((order, at) for at in by_length)
        self._launch()
        try:
            await order.done
        except asyncio.CancelledError:
            self._drop()
            raise
        return [order.found[at] for at in range(len(texts))]

    def _launch(self) -> None:
        while len(self._flights) < self.at_once and (taken := self._take()):
            work = self.embedder.embed([order.texts[at] for order, at in taken], pool=False)
            flight = asyncio.ensure_future(work)
            self._flights[flight] = taken
            flight.add_done_callback(self._land)

    def _take(self) -> list[tuple[_Order, int]]:
        taken: list[tuple[_Order, int]] = []
        characters = 0
        while self._waiting and len(taken) < TEXTS:
            order, at = self._waiting[0]
            if not order.done.done():
                characters += len(order.texts[at])
                if taken and characters > CHARACTERS:
                    break
                taken.append((order, at))
            self._waiting.popleft()
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
                if len(order.found) == len(order.texts) and not order.done.done():
                    order.done.set_result(None)
        self._launch()

    def _drop(self) -> None:
        """Stop the requests for which nobody waits any more."""
        for flight, taken in self._flights.items():
            if all(order.done.done() for order, _ in taken):
                flight.cancel()

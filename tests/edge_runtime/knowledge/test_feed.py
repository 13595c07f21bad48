"""Requests to the embedder, made of the texts of many documents: what is in each, and who gets what."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import EngineError
from edge_runtime.knowledge.embedder import TextKind, Vectors
from edge_runtime.knowledge.feed import AT_ONCE, CHARACTERS, TEXTS, Feed


class Slow:
    """Answers when it is let; each text's vector is its length."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.gate = asyncio.Event()
        self.running = self.most = self.stopped = 0
        self.broken = False

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        assert (pool, kind) == (False, "passage")
        self.requests.append(texts)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.running -= 1
        if self.broken:
            raise EngineError("the embedder is not there")
        return Vectors([np.full((1, 1), len(text), np.float32) for text in texts], [[(0, len(text))] for text in texts])


@given(st.lists(st.lists(st.integers(1, 3000), max_size=150), max_size=6))
def test_every_document_gets_the_vectors_of_its_texts_in_their_order(documents: list[list[int]]) -> None:
    async def work() -> tuple[Slow, list[list[int]]]:
        slow = Slow()
        slow.gate.set()
        feed = Feed(slow)
        found = await asyncio.gather(*(feed.embed(["x" * size for size in sizes]) for sizes in documents))
        return slow, [[int(one.rows[0, 0]) for one in part] for part in found]

    slow, found = asyncio.run(work())
    assert found == documents
    assert slow.most <= AT_ONCE
    for texts in slow.requests:
        assert len(texts) <= TEXTS
        assert len(texts) == 1 or sum(map(len, texts)) <= CHARACTERS


def test_small_documents_share_a_request_and_one_is_always_waiting() -> None:
    async def work() -> Slow:
        slow = Slow()
        feed = Feed(slow)
        tasks = [asyncio.create_task(feed.embed(["a", "bb"])) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert slow.running == AT_ONCE
        slow.gate.set()
        await asyncio.gather(*tasks)
        return slow

    assert [len(texts) for texts in asyncio.run(work()).requests] == [2, 2, 16]


def test_a_document_that_is_given_up_takes_no_more_of_the_embedder() -> None:
    async def work() -> Slow:
        slow = Slow()
        feed = Feed(slow)
        leaving = asyncio.create_task(feed.embed(["x" * 1000] * 500))
        await asyncio.sleep(0.01)
        staying = asyncio.create_task(feed.embed(["a"]))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        slow.gate.set()
        await staying
        return slow

    slow = asyncio.run(work())
    assert slow.stopped == AT_ONCE
    assert slow.requests[AT_ONCE:] == [["a"]]


def test_an_embedder_that_fails_fails_those_who_waited_and_serves_the_next() -> None:
    async def work() -> None:
        slow = Slow()
        slow.gate.set()
        slow.broken = True
        feed = Feed(slow)
        with pytest.raises(EngineError):
            await feed.embed(["a"] * 200)
        slow.broken = False
        assert len(await feed.embed(["a", "b"])) == 2

    asyncio.run(work())

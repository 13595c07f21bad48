"""Replies to one request: their order, and a reader that waits, leaves or comes late."""

from __future__ import annotations

import asyncio

import pytest

from edge_runtime.daemon.replies import Replies
from edge_runtime.engine.messages import Done, Token
from edge_runtime.errors import EngineError

END = Done(id="a", reason="stop", prompt_tokens=1, completion_tokens=2, cached_tokens=0, prefill_ms=1.0, decode_ms=1.0)


def token(number: int) -> Token:
    return Token(id="a", text=str(number), tokens=number)


def test_what_came_before_the_reader_is_read_in_its_order_and_only_the_last_one_ends_it() -> None:
    async def read() -> list[bool]:
        replies = Replies()
        for reply in (token(1), token(2), END):
            replies.put(reply)
        seen = []
        for expected in (token(1), token(2), END):
            assert await replies.get() == expected
            seen.append(replies.ended)
        return seen

    assert asyncio.run(read()) == [False, False, True]


def test_a_reader_that_waits_gets_what_comes_and_an_error_is_the_end() -> None:
    async def read() -> None:
        replies = Replies()
        waiting = asyncio.ensure_future(replies.get())
        await asyncio.sleep(0)
        # Two at once wake it once, and none of them is lost.
        replies.put(token(1))
        replies.put(EngineError("gone"))
        assert await waiting == token(1)
        assert not replies.ended
        assert isinstance(await replies.get(), EngineError)
        assert replies.ended

    asyncio.run(read())


def test_a_reader_that_was_stopped_loses_nothing_for_the_next_one() -> None:
    async def read() -> None:
        replies = Replies()
        waiting = asyncio.ensure_future(replies.get())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        replies.put(token(1))
        assert await replies.get() == token(1)

    asyncio.run(read())

"""Places and turns in front of the index."""

from __future__ import annotations

import asyncio

import pytest

from edge_runtime.daemon.questions import Questions
from edge_runtime.errors import BusyError


def test_a_place_is_free_again_after_an_answer_an_error_and_a_cancellation() -> None:
    questions = Questions(1, 1)

    def ask(error: BaseException | None = None) -> None:
        with questions.admit("uid 7", ["Why?"], privileged=False):
            if error is not None:
                raise error

    ask()
    for error in (RuntimeError("broken"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            ask(error)
    ask()
    assert questions.queue.orders == []


def test_one_too_many_is_told_what_is_full() -> None:
    questions = Questions(2, 1)
    with questions.admit("uid 7", ["Why?"], privileged=False):
        with pytest.raises(BusyError, match="uid 7 has 1 questions") as refused:
            questions.admit("uid 7", ["Why?"], privileged=False).__enter__()
        assert refused.value.reason == "quota"
        with questions.admit("uid 8", ["Why?"], privileged=False):
            with pytest.raises(BusyError, match="2 questions run or wait") as full:
                questions.admit("uid 0", ["Why?"], privileged=True).__enter__()
            assert full.value.reason == "queue_full"


def test_no_more_look_at_once_than_there_are_turns_and_one_who_leaves_does_not_take_his_with_him() -> None:
    questions = Questions(9, 9, at_once=2)
    looking: list[int] = []
    most = 0

    async def look(number: int, until: asyncio.Event) -> None:
        nonlocal most
        async with questions.turns:
            looking.append(number)
            most = max(most, len(looking))
            await until.wait()
            looking.remove(number)

    async def run() -> None:
        until = asyncio.Event()
        tasks = [asyncio.ensure_future(look(number, until)) for number in range(6)]
        await asyncio.sleep(0)
        tasks[3].cancel()  # it waits still
        until.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert (most, looking, questions.turns.locked()) == (2, [], False)

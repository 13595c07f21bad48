"""Requests that outlive their engine, and the one that kills it; the engine is a real process that computes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_runtime.daemon.admission import Bid, Limits
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.engine import LONGEST_TOKEN, Engine
from edge_runtime.daemon.events import Events
from edge_runtime.engine.messages import Done, Load, Score, Submit, Token
from edge_runtime.errors import ContextLengthError, EngineError

CONTEXT = 8  # tokens, as the child says


@contextlib.asynccontextmanager
async def engine(tmp_path: Path, *lives: str) -> AsyncIterator[Engine]:
    """An engine whose child behaves so in each of its lives."""
    told = tmp_path / "lives"
    told.write_text(" ".join(lives), "ascii")
    child = Child(
        "engine",
        "tests.edge_runtime.daemon.fickle",
        options=["--lives", str(told)],
        find=lambda: Load(path="", name="m"),
        events=Events(),
    )
    keep = asyncio.ensure_future(child.supervise())
    try:
        await child.come()
        yield Engine(child, Limits(slots=8, queue=8, per_user=8))
    finally:
        keep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keep


async def written(engine: Engine, prompt: str, begun: asyncio.Event | None = None) -> int:
    """Tokens of the text after ``prompt``."""
    count = 0
    with engine.admit(Bid(user="u", priority="interactive")) as place:
        async for step in engine.generate(Submit(id="", domain="uid:1", prompt=prompt), place):
            count += isinstance(step, Token)
            if begun is not None:
                begun.set()
            if isinstance(step, Done):
                assert step.completion_tokens == count
    return count


async def beside(engine: Engine, count: int) -> list[asyncio.Task[int]]:
    """So many texts that have begun."""
    events = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.ensure_future(written(engine, "harmless", event)) for event in events]
    for event in events:
        await event.wait()
    return tasks


def test_a_request_that_kills_its_engine_twice_takes_no_other_along(tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path, "hold", "hold", "finish") as box:
            neighbours = await beside(box, 3)
            with pytest.raises(EngineError, match="and once before"):
                await written(box, "poison")
            assert await asyncio.gather(*neighbours) == [3, 3, 3]

    asyncio.run(run())


def test_two_that_kill_are_both_found_and_the_rest_are_served(tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path, "hold", "hold", "finish") as box:
            neighbours = await beside(box, 2)
            killers = [written(box, "poison") for _ in range(2)]
            found = await asyncio.gather(*killers, return_exceptions=True)
            assert [type(one) for one in found] == [EngineError, EngineError]
            assert await asyncio.gather(*neighbours) == [3, 3]

    asyncio.run(run())


def test_a_request_waits_through_a_failed_start_and_a_new_one_does_not(tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path, "hold", "fail", "finish") as box:
            (begun,) = await beside(box, 1)
            box.child.kill()
            while box.child.state != "failed":  # noqa: ASYNC110  (an event would come when it is over)
                await asyncio.sleep(0.001)
            with pytest.raises(EngineError, match="not this time"):
                await written(box, "late")
            assert await begun == 2

    asyncio.run(run())


def test_a_prompt_that_fits_no_context_is_refused_before_the_engine_hears_of_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path, "finish") as box:
            most = CONTEXT * LONGEST_TOKEN
            assert await written(box, "x" * most) == 1
            for long in ("x" * (most + 1), "é" * (most // 2 + 1)):
                with pytest.raises(ContextLengthError, match=f"at most {most}") as refused:
                    await written(box, long)
                assert (refused.value.status, refused.value.param) == (400, "prompt")
            with (
                box.admit(Bid(user="u", priority="interactive")) as place,
                pytest.raises(ContextLengthError),
            ):
                await box.score(Score(id="", domain="uid:1", prompt="x" * most, choices=["", "y"]), place)

    asyncio.run(run())

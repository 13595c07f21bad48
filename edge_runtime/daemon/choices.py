"""The texts of one request on their way to the client, counted for the log, the metrics and the list of requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec

from edge_runtime import openai_protocol, protocol
from edge_runtime.daemon.admission import Place
from edge_runtime.daemon.call import Call
from edge_runtime.daemon.engine import Engine
from edge_runtime.engine.messages import Done, Submit, Token
from edge_runtime.errors import EngineError

Step = Token | Done
Steps = AsyncGenerator[Step, None]


class Choices:
    """``count`` texts after one prompt, written side by side; each with a seed of its own where there is one."""

    def __init__(self, call: Call, engine: Engine, place: Place, submit: Submit, *, count: int) -> None:
        self._call = call
        self._streams = [
            engine.generate(_seeded(submit, index), place, on_start=call.running.start) for index in range(count)
        ]
        self._paces = [call.pace() for _ in range(count)]
        self._done: list[Done | None] = [None] * count

    async def steps(self) -> AsyncGenerator[tuple[int, Step], None]:
        """Each step with the index of its text; :class:`Done` is a text's last. Raises as :meth:`Engine.generate`."""
        if len(self._streams) == 1:
            async with contextlib.aclosing(self._streams[0]) as only:
                async for step in only:
                    self._count(0, step)
                    yield 0, step
            return
        async with contextlib.aclosing(_merge(self._streams)) as merged:
            async for index, step in merged:
                self._count(index, step)
                yield index, step

    def _count(self, index: int, step: Step) -> None:
        pace, call = self._paces[index], self._call
        before = pace.tokens
        pace.step(step)
        call.completion_tokens += pace.tokens - before
        if isinstance(step, Token):
            call.running.tokens = call.completion_tokens
        else:
            self._done[index] = step
            call.prompt_tokens = step.prompt_tokens

    @property
    def finished(self) -> bool:
        """Whether every text has ended."""
        return all(self._done)

    @property
    def ended(self) -> list[Done]:
        every = [done for done in self._done if done is not None]
        if len(every) < len(self._done):
            raise EngineError("the engine ended a request without saying how; send it again")
        return every

    @property
    def usage(self) -> openai_protocol.Usage:
        read, written = self.ended[0].prompt_tokens, sum(done.completion_tokens for done in self.ended)
        return openai_protocol.Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    @property
    def report(self) -> protocol.EdgeReport:
        first, drafted = self.ended[0], sum(done.drafted for done in self.ended)
        parked = sum(done.parked for done in self.ended)
        return protocol.EdgeReport(
            cache=protocol.CacheReport(
                hit_tokens=first.cached_tokens,
                tier=first.tier,
                diverged=first.diverged or msgspec.UNSET,
            ),
            speculation=protocol.SpeculationReport(drafted=drafted, accepted=sum(done.accepted for done in self.ended))
            if drafted
            else msgspec.UNSET,
            parked=parked or msgspec.UNSET,
        )


def finish_reason(done: Done) -> openai_protocol.FinishReason:
    return "length" if done.reason == "length" else "stop"


def _seeded(submit: Submit, index: int) -> Submit:
    seed = submit.params.seed
    if seed is None or index == 0:
        return submit
    return msgspec.structs.replace(submit, params=msgspec.structs.replace(submit.params, seed=(seed + index) % 2**32))


async def _merge(streams: Sequence[Steps]) -> AsyncGenerator[tuple[int, Step], None]:
    """The steps of all streams as they come. The first one that fails fails the rest."""
    steps: asyncio.Queue[tuple[int, Step | asyncio.Task[None]]] = asyncio.Queue(maxsize=len(streams))

    async def pump(index: int, stream: Steps) -> None:
        async with contextlib.aclosing(stream):
            async for step in stream:
                await steps.put((index, step))

    async def watch(index: int, work: asyncio.Task[None]) -> None:
        await asyncio.wait([work])
        await steps.put((index, work))

    pumps = [asyncio.ensure_future(pump(index, stream)) for index, stream in enumerate(streams)]
    watches = [asyncio.ensure_future(watch(index, work)) for index, work in enumerate(pumps)]
    try:
        left = len(pumps)
        while left:
            match await steps.get():
                case _, asyncio.Task() as ended:
                    ended.result()
                    left -= 1
                case index, (Token() | Done()) as step:
                    yield index, step
    finally:
        for task in (*watches, *pumps):
            task.cancel()
        await asyncio.gather(*pumps, *watches, return_exceptions=True)

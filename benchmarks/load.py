"""Clients for the engine's benchmarks: HTTP/1.1 over a Unix socket or loopback TCP, each event with its arrival time.

Events are kept as bytes and read after the run, since the client shares its cores with what it measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

Door = Path | tuple[str, int]  # a Unix socket, or an address and a port
PATIENCE_S = 120.0


@dataclass(eq=False)
class Told:
    """One exchange as its client saw it; times are of ``time.perf_counter``, seconds."""

    sent: float = 0.0
    status: int = 0  # 0: no reply came
    head: bytes = b""
    body: bytes = b""
    events: list[tuple[float, bytes]] = field(default_factory=list)  # arrival, data
    ended: float = 0.0
    is_whole: bool = False  # the reply came to its end

    @cached_property
    def chunks(self) -> list[tuple[float, dict[str, Any]]]:
        """The events that are JSON."""
        return [(at, json.loads(data)) for at, data in self.events if data.startswith(b"{")]

    @cached_property
    def texts(self) -> list[tuple[float, str]]:
        """Arrival and text of each event that brought some."""
        choices = [(at, choice) for at, chunk in self.chunks for choice in chunk.get("choices") or ()]
        told = [(at, choice.get("text") or (choice.get("delta") or {}).get("content")) for at, choice in choices]
        return [(at, text) for at, text in told if text]

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.texts)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.texts]

    @property
    def first_s(self) -> float:
        """Seconds from sending to the first text; infinite where there was none."""
        return self.times[0] - self.sent if self.texts else float("inf")

    @cached_property
    def finish(self) -> tuple[float, str] | None:
        """When and why the generation ended."""
        for at, chunk in self.chunks:
            for choice in chunk.get("choices") or ():
                if choice.get("finish_reason"):
                    return at, choice["finish_reason"]
        return None

    @cached_property
    def error(self) -> str:
        """The code of the error that was sent, in a stream or as the whole reply; empty: none."""
        if not self.is_whole and not self.status:
            return "no reply"
        for told in [chunk for _, chunk in self.chunks] + [self.json]:
            if "error" in told:
                return str(told["error"].get("code") or told["error"].get("message"))
        return "" if self.is_whole else "cut off"

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body of a reply that is no stream."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _last(self, name: str) -> dict[str, Any]:
        for told in (self.json, *(chunk for _, chunk in reversed(self.chunks))):
            if told.get(name):
                found: dict[str, Any] = told[name]
                return found
        return {}

    @property
    def tokens(self) -> int:
        """How many tokens the events brought, where the request asked for ``logprobs``."""
        choices = [choice for _, chunk in self.chunks for choice in chunk.get("choices") or ()]
        return sum(len((choice.get("logprobs") or {}).get("tokens", ())) for choice in choices)

    @property
    def completion_tokens(self) -> int:
        return int(self._last("usage").get("completion_tokens", 0))

    @property
    def prompt_tokens(self) -> int:
        return int(self._last("usage").get("prompt_tokens", 0))

    @property
    def cache(self) -> dict[str, Any]:
        """Our ``edge.cache``."""
        found: dict[str, Any] = self._last("edge").get("cache", {})
        return found

    @property
    def guessed(self) -> int:
        """Tokens that speculation guessed rightly, as our ``edge.speculation`` tells."""
        return int(self._last("edge").get("speculation", {}).get("accepted", 0))

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower().encode():
                return value.strip().decode("latin-1")
        return None


class _Wire(asyncio.Protocol):
    """Cuts what arrives into head, chunks and events; nothing is decoded here."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._stream = bytearray()
        self._length: int | None = None
        self._is_chunked = self._is_stream = False

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._buffer += data
        if not self.told.status and not self._take_head():
            return
        if self._is_chunked:
            self._take_chunks(now)
        else:
            self._feed(bytes(self._buffer), now)
            self._buffer.clear()
            if self._length is not None and len(self.told.body) >= self._length:
                self._end(now, whole=True)

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        told = self.told
        told.head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        told.status = int(told.head.split(b" ", 2)[1])
        self._is_chunked = "chunked" in (told.header("transfer-encoding") or "").lower()
        self._is_stream = "event-stream" in (told.header("content-type") or "")
        length = told.header("content-length")
        self._length = int(length) if length else None
        return True

    def _take_chunks(self, now: float) -> None:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            if size == 0:
                self._end(now, whole=True)
                return
            if len(self._buffer) < end + 2 + size + 2:
                return
            self._feed(bytes(self._buffer[end + 2 : end + 2 + size]), now)
            del self._buffer[: end + 2 + size + 2]

    def _feed(self, data: bytes, now: float) -> None:
        if not self._is_stream:
            self.told.body += data
            return
        self._stream += data
        while (end := self._stream.find(b"\n\n")) >= 0:
            for line in bytes(self._stream[:end]).split(b"\n"):
                if line.startswith(b"data:"):
                    self.told.events.append((now, line[5:].strip()))
            del self._stream[: end + 2]

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._end(time.perf_counter(), whole=bool(self.told.status) and not self._is_chunked and self._length is None)

    def _end(self, now: float, *, whole: bool) -> None:
        if not self.done.done():
            self.told.ended = now
            self.told.is_whole = whole
            self.done.set_result(None)


class Exchange:
    """One request on a connection of its own; ``cancel`` closes it, as a client that goes away does."""

    def __init__(self, told: Told, transport: asyncio.Transport, wire: _Wire) -> None:
        self.told = told
        self._transport = transport
        self._wire = wire

    @classmethod
    async def open(cls, door: Door, target: str, body: dict[str, Any] | bytes | None = None) -> Self:
        """Connect and send (bytes: JSON as it is); raises OSError where nobody listens."""
        loop = asyncio.get_running_loop()
        told = Told()
        told.sent = time.perf_counter()
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        if isinstance(door, Path):
            transport, wire = await loop.create_unix_connection(lambda: _Wire(told), str(door))
        else:
            transport, wire = await loop.create_connection(lambda: _Wire(told), *door)
        transport.write(head.encode() + b"\r\n" + data)
        return cls(told, transport, wire)

    def cancel(self) -> float:
        """Close the connection; the moment at which that was."""
        self._transport.abort()
        return time.perf_counter()

    async def end(self, seconds: float = PATIENCE_S) -> Told:
        """What was told, when the reply is whole, the connection lost, or ``seconds`` are over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._wire.done), seconds)
        self._transport.abort()
        return self.told

    async def begun(self, events: int = 1, seconds: float = PATIENCE_S) -> bool:
        """Wait until so many events have come; false where the reply ended before, or the time did."""
        deadline = time.perf_counter() + seconds
        while len(self.told.events) < events:
            if self._wire.done.done() or time.perf_counter() > deadline:
                return len(self.told.events) >= events
            await asyncio.sleep(0.005)
        return True


def completion(prompt: str, tokens: int, *, model: str = "default", **more: Any) -> dict[str, Any]:
    """A greedy completion of exactly ``tokens`` tokens as a stream, as ours and llama-server's API have it."""
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }


async def complete(door: Door, body: dict[str, Any], seconds: float = PATIENCE_S) -> Told:
    return await (await Exchange.open(door, "/v1/completions", body)).end(seconds)


async def complete_all(door: Door, bodies: Sequence[dict[str, Any]], seconds: float = PATIENCE_S) -> list[Told]:
    """All of them at once."""
    return list(await asyncio.gather(*(complete(door, body, seconds) for body in bodies)))


async def get(door: Door, target: str) -> Told:
    return await (await Exchange.open(door, target)).end(10.0)


class Choir:
    """Streams that go on, each started anew where it ends: the load beside which other things are measured."""

    def __init__(self, door: Door, prompts: Sequence[str], tokens: int) -> None:
        self._door = door
        self._prompts = prompts
        self._tokens = tokens
        self._open: dict[int, Exchange] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.sung: list[list[Told]] = [[] for _ in prompts]

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._sing(voice)) for voice in range(len(self._prompts))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for exchange in self._open.values():
            exchange.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sing(self, voice: int) -> None:
        turn = 0
        while True:
            prompt = f"{turn} {self._prompts[voice]}" if turn else self._prompts[voice]
            exchange = await Exchange.open(self._door, "/v1/completions", completion(prompt, self._tokens))
            self._open[voice] = exchange
            self.sung[voice].append(exchange.told)
            await exchange.end(3600.0)
            turn += 1
            if exchange.told.error:
                await asyncio.sleep(0.2)

    async def settled(self, events: int = 8, seconds: float = PATIENCE_S) -> bool:
        """Wait until every stream has told so many events."""
        deadline = time.perf_counter() + seconds
        while any(sum(len(told.events) for told in voice) < events for voice in self.sung):
            if time.perf_counter() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    def count(self, start: float, end: float) -> int:
        """Events of all streams that arrived between two moments."""
        return sum(start <= at < end for voice in self.sung for told in voice for at, _ in told.events)

    def rate(self, start: float, end: float) -> float:
        return self.count(start, end) / (end - start)

    def gaps(self, start: float, end: float) -> list[float]:
        """Seconds between neighbouring events of one stream, of gaps that reach into ``start`` to ``end``.

        A silence that nothing has ended yet counts as far as it went.
        """
        found = []
        for voice in self.sung:
            times = sorted(at for told in voice for at, _ in told.events)
            times += [end] if times and times[-1] < end else []
            pairs = itertools.pairwise(times)
            found += [after - before for before, after in pairs if after > start and before < end]
        return found

    def errors(self) -> list[str]:
        return [told.error for voice in self.sung for told in voice if told.ended and told.error]

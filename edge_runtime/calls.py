"""How a call reaches the daemon and how its reply is read: what every group of calls in the client stands on.

Nothing is retried here. One connection a call; leaving a stream early closes it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from edge_runtime import protocol
from edge_runtime.errors import EdgeError, RequestError, from_wire
from edge_runtime.http1 import Reply, Request, exchange
from edge_runtime.sse import EventLines, ServerEvent

_T = TypeVar("_T")
_STREAM_TYPE = "text/event-stream"


class Calls:
    """Calls to the daemon listening on ``socket``.

    Every call raises UnreachableError where no daemon answers, DeadlineError where one says nothing for ``silence_s``
    seconds (None: wait for as long as it takes), and else the error that the daemon named.
    """

    def __init__(self, socket: Path, *, silence_s: float | None = None) -> None:
        self.socket = socket
        self._silence_s = silence_s

    async def _call(self, kind: type[_T], method: str, target: str, body: msgspec.Struct | None = None) -> _T:
        return decode(await self._read(method, target, body), kind)

    async def _read(self, method: str, target: str, body: msgspec.Struct | None = None) -> bytes:
        request = Request(method, target, b"" if body is None else msgspec.json.encode(body))
        async with exchange(self.socket, request, self._silence_s) as reply:
            data = await reply.read()
        if reply.status >= 300:
            raise _error(data, reply)
        return data

    async def _stream(
        self, method: str, target: str, body: msgspec.Struct | None = None
    ) -> AsyncGenerator[ServerEvent, None]:
        request = Request(method, target, b"" if body is None else msgspec.json.encode(body), accept=_STREAM_TYPE)
        async with exchange(self.socket, request, self._silence_s) as reply:
            if reply.status >= 300:
                raise _error(await reply.read(), reply)
            async with aclosing(_events(reply)) as events:
                async for event in events:
                    yield event


def decode(body: bytes | str, kind: type[_T]) -> _T:
    """A reply as its type; EdgeError where it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise EdgeError(
            f"the daemon's reply is not what this version expects: {error}\nare both of one version?"
        ) from error


def path_of(*parts: str) -> str:
    """Raises RequestError for a name that would not stay a part of its own: servers fold these away."""
    for part in parts:
        if part in ("", ".", ".."):
            raise RequestError(f'"{part}" is no name; give the name of what is meant')
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _error(body: bytes | str, reply: Reply) -> EdgeError:
    try:
        told = msgspec.json.decode(body, type=protocol.ErrorReply).error
    except msgspec.MsgspecError:
        return EdgeError(f"the daemon answered with status {reply.status} and no reason")
    return from_wire(told.code, told.message, told.param, retry_after=reply.retry_after)


async def _events(reply: Reply) -> AsyncGenerator[ServerEvent, None]:
    """The events of a stream; one that carries an error is raised."""
    lines = EventLines()
    async for data in reply.chunks():
        for event in lines.feed(data):
            if event.name == "error" or event.data.startswith('{"error"'):
                raise _error(event.data, reply)
            yield event

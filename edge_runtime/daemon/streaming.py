"""Server-sent events to one client (WHATWG HTML standard, section 9.2), with little buffered.

A client that stops reading is dropped after a while: what it has not read is at most the socket's buffer and ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import msgspec
from aiohttp import web

from edge_runtime.daemon import logs
from edge_runtime.protocol import ErrorReply

_BUFFER_BYTES = 32 * 1024
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
_encode = msgspec.json.Encoder().encode


class StalledError(ConnectionError):
    """The client did not read for too long, and its connection was cut."""


async def send_whole(request: web.Request, response: web.Response, stall_seconds: float) -> web.Response:
    """Send a reply that is whole already, to a client that reads it.

    Raises:
        StalledError: it has not read for ``stall_seconds``.
        ConnectionError: it is gone.
    """
    try:
        async with asyncio.timeout(stall_seconds):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        raise _cut(request, stall_seconds) from None
    return response


def _cut(request: web.Request, seconds: float) -> StalledError:
    logs.warn("client.stalled", seconds=seconds)
    if (transport := request.transport) is not None:
        transport.abort()
    return StalledError(f"the client has not read for {seconds:g} seconds")


class EventStream:
    """Prepared at the first event, so that an error before it can still have its own status."""

    def __init__(self, request: web.Request, *, key: str, stall_seconds: float) -> None:
        self.response = web.StreamResponse(headers={**_HEADERS, "X-Request-Id": key})
        self.started = False
        self._request = request
        self._stall = stall_seconds

    async def start(self) -> None:
        if self.started:
            return
        self.started = True
        transport = self._request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=_BUFFER_BYTES)
            connection: socket.socket | None = transport.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        await self.response.prepare(self._request)

    async def send(self, data: msgspec.Struct | str, event: str | None = None) -> None:
        """One event; waits while the client has not read enough of the earlier ones.

        Raises:
            StalledError: it has not for ``stall_seconds``.
            ConnectionError: it is gone.
        """
        await self.start()
        body = data.encode() if isinstance(data, str) else _encode(data)
        head = f"event: {event}\n".encode() if event else b""
        chunk = head + b"data: " + body + b"\n\n"
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() == 0 and len(chunk) < _BUFFER_BYTES:
            # A client that keeps up takes it at once. A timer for every token would cost as much as the rest of this.
            await self.response.write(chunk)
            return
        try:
            async with asyncio.timeout(self._stall):
                await self.response.write(chunk)
        except TimeoutError:
            raise _cut(self._request, self._stall) from None

    async def fail(self, error: ErrorReply, event: str | None) -> None:
        """The last event of a stream that cannot go on."""
        with contextlib.suppress(ConnectionError):
            await self.send(error, event)
            await self.end()

    async def end(self) -> web.StreamResponse:
        await self.start()
        try:
            async with asyncio.timeout(self._stall):
                await self.response.write_eof()
        except TimeoutError:
            raise _cut(self._request, self._stall) from None
        return self.response

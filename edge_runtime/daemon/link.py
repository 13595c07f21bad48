"""``edged``'s end of the socket pair to a child: frames are decoded, and handed on, as they arrive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from edge_runtime.engine.messages import Down, FrameError, Frames, Up, decode_up, encode


class Link(asyncio.Protocol):
    """A protocol and no stream: a stream wakes one more task for every token."""

    def __init__(self, receive: Callable[[Up], None]) -> None:
        # Its result is None where the child closed its end.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receive = receive
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, end: socket.socket, receive: Callable[[Up], None]) -> Link:
        """Take over ``end``; ``receive`` gets every message."""
        _, link = await asyncio.get_running_loop().create_connection(lambda: cls(receive), sock=end)
        return link

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Down) -> None:
        """What nobody reads any more is dropped."""
        if self._transport is not None:
            self._transport.write(encode(message))

    def close(self) -> None:
        """What was sent before still arrives."""
        if self._transport is not None:
            self._transport.close()

    # ---- called by the event loop ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._receive(decode_up(body))
        except FrameError as error:
            self._end(error)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

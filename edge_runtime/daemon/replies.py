"""What a child sends to one request, in the order in which it came, for one reader."""

from __future__ import annotations

import asyncio
from collections import deque

from edge_runtime.engine.messages import Done, Scored, Up
from edge_runtime.errors import EdgeError

_LAST = Done | Scored | EdgeError


class Replies:
    """A queue with a single reader: every token passes here, and :class:`asyncio.Queue` does more for each."""

    def __init__(self) -> None:
        self.ended = False  # the reader has got the last one
        self._waiting: deque[Up | EdgeError] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, reply: Up | EdgeError) -> None:
        self._waiting.append(reply)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Up | EdgeError:
        """The next one; an :class:`EdgeError` is returned, not raised."""
        if not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        reply = self._waiting.popleft()
        self.ended = isinstance(reply, _LAST)
        return reply

"""Room for so many things of so much size at once, given out in the order in which it was asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Room:
    """At most ``places`` holders with ``size`` together; one that is larger than all of it is let in alone."""

    def __init__(self, size: int, places: int) -> None:
        self._size = size
        self._places = places
        self._held = 0
        self._holders = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait for ``size``, and have it while the block lasts."""
        size = min(size, self._size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in and cancelled in one go
                self._leave(size)
            else:
                self._waiting.remove((size, turn))
                self._admit()  # whoever stood behind may fit
            raise
        try:
            yield
        finally:
            self._leave(size)

    def _leave(self, size: int) -> None:
        self._held -= size
        self._holders -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._holders < self._places and self._held + self._waiting[0][0] <= self._size:
            size, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._held += size
            self._holders += 1
            turn.set_result(None)

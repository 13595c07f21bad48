"""What happens on the box, told to whoever listens; a listener that does not keep up is dropped, never waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from edge_runtime.protocol import Event

QUEUE = 256  # events that a listener may be behind


class Events:
    """Hands each event to every open subscription."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def publish(self, kind: str, **fields: str | float | bool | None) -> None:
        event = Event(kind=kind, at=time.time(), fields=fields)
        for listener in list(self._listeners):
            if listener.qsize() >= QUEUE:
                self._listeners.discard(listener)
                listener.put_nowait(None)
            else:
                listener.put_nowait(event)

    async def subscribe(self) -> AsyncIterator[Event]:
        """Events from now on; ends when this listener was dropped for being slow, or at :meth:`close`."""
        listener: asyncio.Queue[Event | None] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            while (event := await listener.get()) is not None:
                yield event
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """End every subscription."""
        for listener in self._listeners:
            listener.put_nowait(None)
        self._listeners.clear()

"""Compacts the index by itself: when nothing was asked for a while, and only where that gives enough back."""

from __future__ import annotations

import asyncio

from edge_runtime.daemon import logs
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.library import Library
from edge_runtime.daemon.requests import Requests
from edge_runtime.errors import EdgeError, StorageError

IDLE_SECONDS = 60.0
LOOK_SECONDS = 10.0
_AGAIN_SECONDS = 3600.0  # after it failed: the disk will not be larger in a moment


async def tidy(
    library: Library, requests: Requests, events: Events, *, idle: float = IDLE_SECONDS, look: float = LOOK_SECONDS
) -> None:
    """Goes on until it is cancelled. Every step of compacting is a transaction: stopped half-way it has done half."""
    while True:
        await asyncio.sleep(look)
        if requests.quiet < idle or library.succession.progress is not None:
            continue
        try:
            index = library.shelf.index
        except EdgeError:
            continue  # it is not open, or broken: the status says so
        try:
            if await asyncio.to_thread(index.needs_compacting):
                before, after = await library.finish(asyncio.to_thread(index.compact))
                logs.info("index.compacted", before=before, after=after)
                events.publish("index.compacted", before=before, after=after)
        except StorageError as error:
            logs.warn("index.compacting.failed", reason=error.message)
            await asyncio.sleep(_AGAIN_SECONDS)

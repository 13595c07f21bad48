"""Requests that saw their engine die: tried again one at a time, so that the one which kills it takes no other along.

A trial ends with the request's first token. A request that kills later in its text is tried with those beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

TRIAL_SECONDS = 30.0  # at most, before the next one may go on beside it


class Trial:
    """One request's turn."""

    def __init__(self, turn: asyncio.Lock | None) -> None:
        self.suspect = turn is not None
        self.life: int | None = None  # of the engine that works on it
        self._turn = turn

    @property
    def on(self) -> bool:
        return self._turn is not None

    def end(self) -> None:
        """It is not this one, or is no longer waited for."""
        if self._turn is not None:
            self._turn.release()
            self._turn = None


class Suspects:
    """Those of one engine."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._tried: Trial | None = None
        self._convicted: set[int] = set()  # lives of the engine that a request on trial ended

    @contextlib.asynccontextmanager
    async def trial(self, *, suspect: bool) -> AsyncIterator[Trial]:
        """The turn of a ``suspect``, until the block or the trial ends; others have none to wait for."""
        if not suspect:
            yield Trial(None)
            return
        await self._turn.acquire()
        self._tried = trial = Trial(self._turn)
        limit = asyncio.get_running_loop().call_later(TRIAL_SECONDS, trial.end)
        try:
            yield trial
        finally:
            limit.cancel()
            trial.end()

    def counts(self, trial: Trial, life: int) -> bool:
        """Whether the end of ``life`` is held against the request with ``trial``: not while another one was tried."""
        if trial.on:
            self._convicted.add(life)
            return True
        other = self._tried
        tried = other is not None and other.on and other.life == life
        return not tried and life not in self._convicted

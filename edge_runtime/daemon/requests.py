"""The requests that run or wait now: who asked for what, for how long, and a way to stop each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from edge_runtime.daemon.peers import Peer
from edge_runtime.errors import NotFoundError
from edge_runtime.protocol import Priority, RunningRequest


@dataclass(slots=True)
class Running:
    """One request at work; ``tokens`` counts what was generated for it so far."""

    id: str
    kind: str
    peer: Peer
    task: asyncio.Task[object] | None
    started: float = field(default_factory=time.monotonic)
    priority: Priority = "interactive"
    state: Literal["waiting", "running"] = "waiting"
    tokens: int = 0
    listed: bool = True
    open_ended: bool = False  # a stop does not wait for it
    cancelled: bool = False
    reason: str = ""

    @property
    def age(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.started

    def start(self) -> None:
        self.state = "running"


class Requests:
    """Every running request by its id."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self._worked = time.monotonic()  # when the last one that works came or was done

    @property
    def quiet(self) -> float:
        """Seconds since anything was asked for that works and not only looks; 0 while such a request runs."""
        if any(entry.listed for entry in self._running.values()):
            return 0.0
        return time.monotonic() - self._worked

    def __len__(self) -> int:
        return len(self._running)

    @contextlib.contextmanager
    def track(self, entry: Running) -> Iterator[Running]:
        """Know of a request until the block ends."""
        self._running[entry.id] = entry
        try:
            yield entry
        finally:
            del self._running[entry.id]
            if entry.listed:
                self._worked = time.monotonic()

    def list(self, peer: Peer | None = None) -> list[RunningRequest]:
        """All of them, oldest first, or those of one peer."""
        now = time.monotonic()
        return [
            RunningRequest(
                id=entry.id,
                kind=entry.kind,
                peer=str(entry.peer),
                priority=entry.priority,
                state=entry.state,
                age_s=round(now - entry.started, 3),
                tokens=entry.tokens,
            )
            for entry in self._running.values()
            if entry.listed and (peer is None or same(entry.peer, peer))
        ]

    def cancel(self, key: str, peer: Peer | None = None) -> None:
        """Stop a request; with ``peer``, only one of its own.

        Raises:
            NotFoundError: no such request runs (any more), or it is not this peer's.
        """
        entry = self._running.get(key)
        if entry is None or (peer is not None and not same(entry.peer, peer)):
            raise NotFoundError(f"no request {key} is running; list them with: GET /edge/v1/requests")
        self._stop(entry, "the request was cancelled by its sender or by the owner of this box")

    def cancel_all(self) -> None:
        """Stop whatever still runs; each gets an error that says why."""
        for entry in list(self._running.values()):
            self._stop(entry, "edged is stopping; send the request again when it has started again")

    async def drain(self, seconds: float) -> bool:
        """Wait until all are done but those that have no end; whether they were within ``seconds``."""
        deadline = time.monotonic() + seconds
        while any(not entry.open_ended for entry in self._running.values()):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _stop(self, entry: Running, reason: str) -> None:
        entry.cancelled = True
        entry.reason = reason
        if entry.task is not None:
            entry.task.cancel()


def same(one: Peer, other: Peer) -> bool:
    """Whether two connections are one user's (supplementary groups may differ)."""
    return str(one) == str(other)

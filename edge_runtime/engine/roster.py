"""Who waits, who runs, and who was parked: requests of one model on their way into its cells and out of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_runtime.engine import scheduler
from edge_runtime.engine.cache import PrefixCache
from edge_runtime.engine.cells import Cells
from edge_runtime.engine.costs import TILE
from edge_runtime.engine.messages import CLASSES, Done
from edge_runtime.engine.scheduler import Stream, Waiting
from edge_runtime.engine.sequence import Sequence


class Roster:
    """The sequences of a generator; ``clock`` is monotonic, in seconds."""

    def __init__(
        self, cells: Cells, cache: PrefixCache, *, slots: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.waiting: list[Sequence] = []
        self.running: dict[int, Sequence] = {}
        self._cells = cells
        self._cache = cache
        self._clock = clock
        self._slots = list(range(slots))[::-1]

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def parked(self) -> int:
        return sum(one.parked > 0 for one in self.waiting)

    def streams(self) -> list[Stream]:
        """Those that have something to evaluate, as the scheduler sees them."""
        return [
            Stream(
                slot=one.slot,
                priority=one.priority,
                pending=one.pending,
                evaluated=one.evaluated,
                reads=one.reads,
                arrived=one.arrived,
                last_step=one.last_step,
                adapter=one.request.adapter,
                border=len(one.prompt) // TILE * TILE if one.canonical else 0,
            )
            for one in self.running.values()
            if one.pending
        ]

    def admit(self) -> None:
        """Let those begin for whom there is room, and those make room that must."""
        running = list(self.running.values())
        # Nobody is looked at while nobody could begin.
        if not self.waiting or not (self._slots or self._outranks(running)):
            return
        total = self._cells.ledger.total
        waiting = [
            Waiting(
                key=number,
                priority=one.priority,
                arrived=one.since,
                cells=min(self._cache.need(one, running) + one.headroom, total),
                held=self._cache.awaits(one, running),
            )
            for number, one in enumerate(self.waiting)
        ]
        # What those who read have not read yet is promised to them.
        free = self._cells.ledger.free - sum(one.pending for one in running if one.reads)
        admission = scheduler.admit(waiting, self.streams(), free=free, slots=len(self._slots), now=self._clock())
        chosen = [self.waiting[key] for key in admission.begin]
        for slot in admission.park:
            self.park(self.running[slot])
        for one in chosen:
            # Those before it may read now what it would.
            if not self._cache.awaits(one, self.running.values()):
                self._begin(one)

    def _outranks(self, running: list[Sequence]) -> bool:
        """Whether somebody who waits is of a higher class than somebody who runs."""
        first = min(CLASSES.index(one.priority) for one in self.waiting)
        return any(CLASSES.index(one.priority) > first for one in running)

    def _begin(self, one: Sequence) -> None:
        self.waiting.remove(one)
        for other in self.running.values():
            other.canonical = False
        one.canonical = not self.running and not one.parked and not one.request.resume
        one.slot = self._slots.pop()
        self.running[one.slot] = one
        if not one.parked:
            one.began = self._clock()
        self._cache.begin(one, self.running.values())

    def leave(self, one: Sequence) -> None:
        """A sequence ends: what it read is kept, its cells are free."""
        try:
            self._cache.keep(one)
        finally:
            self._cells.drop(one.slot)
            del self.running[one.slot]
            self._slots.append(one.slot)
            one.slot = -1

    def park(self, one: Sequence) -> None:
        """It makes room, and goes on later from what was kept of it."""
        self.leave(one)
        one.evaluated = 0
        one.parked += 1
        one.since = self._clock()
        self.waiting.append(one)

    def cancel(self, name: str) -> Done | None:
        """The end of a request; None: there is no such."""
        for one in self.waiting:
            if one.id == name:
                self.waiting.remove(one)
                return one.done("cancelled")
        for one in self.running.values():
            if one.id == name:
                self.leave(one)
                return one.done("cancelled")
        return None

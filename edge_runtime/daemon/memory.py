"""The memory budget: what all processes of the box take together, and what is given up before it would be passed.

:func:`decide` is pure. First the engines let go of prefixes that no request uses; where that is not enough, new work
is refused until there is room; what was admitted goes on. Who grows by more than the margin within a second is seen
only afterwards. ``edged`` counts by its PSS, each child by what it tells (:mod:`edge_runtime.resident`): above its PSS
in all that was measured, by 4 to 25 %, and by more where other programs have mapped the same weights.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_runtime import machine
from edge_runtime.daemon import logs
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.engine import Engine
from edge_runtime.daemon.events import Events
from edge_runtime.engine.messages import Shrink
from edge_runtime.errors import EngineError
from edge_runtime.resident import proportional_bytes

SECONDS = 1.0  # between two looks
MIB = 2**20
_RESERVE = 8  # one part in so many of the machine's memory is never ours
_LEAST_RESERVE = 128 * MIB
_CROWDED = 0.92  # of the budget: above it prefixes are let go
_ROOMY = 0.85  # below it they may come back
_PRESSED = 0.10  # share of ten seconds in which somebody waited for memory: others need it more than our cache
_STEP = 4 * MIB  # a limit that moves by less is not sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look. All in bytes but ``pressure``, a share of time."""

    used: int  # by all processes of the box
    budget: int
    held: int  # of ``used``, by prefixes in host memory
    pressure: float = 0.0
    available: int | None = None  # in the whole machine
    reserve: int = 0  # what is to stay available there


@dataclass(frozen=True, slots=True)
class Decision:
    """``cache_bytes`` is what prefixes may take; ``refuse``: no new work."""

    cache_bytes: int
    refuse: bool = False


def decide(reading: Reading, before: Decision, most: int) -> Decision:
    """What holds from now on; ``most``: the configured bytes of prefixes."""
    short = max(0, reading.reserve - reading.available) if reading.available is not None else 0
    # What the machine lacks counts as if we had taken it: the budget is worth nothing where others have spent it.
    used = reading.used + short
    over = used - int(reading.budget * _CROWDED)
    cache = before.cache_bytes
    if over > 0:
        cache = min(cache, max(0, reading.held - over))
    elif reading.pressure > _PRESSED:
        cache = min(cache, reading.held // 2)
    elif used < reading.budget * _ROOMY:
        cache = max(cache, reading.held + int(reading.budget * _ROOMY) - used)
    cache = min(cache, most)
    # Prefixes that can still be let go make room without refusing anybody.
    firm = used - reading.held
    refuse = firm > reading.budget * (_CROWDED if before.refuse else 1.0)
    return Decision(cache, refuse)


def budget(configured: int, total: int | None, group: int | None) -> int:
    """Bytes for all processes: as configured, else what machine and control group have, less a reserve."""
    if configured:
        return configured
    limits = [limit for limit in (total, group) if limit is not None]
    return min((limit - reserve(limit) for limit in limits), default=2**62)


def reserve(limit: int) -> int:
    return min(max(limit // _RESERVE, _LEAST_RESERVE), limit // 2)


class Parts(Protocol):
    """What is watched: models may be loaded and unloaded while the box runs."""

    @property
    def children(self) -> Sequence[Child]: ...

    @property
    def engines(self) -> Sequence[Engine]: ...


@dataclass(slots=True)
class Memory:
    """Looks once a second, and holds the last figures for whoever shows them.

    ``configured``: the budget, 0 for what there is; ``cache``: bytes of prefixes, where there is room.
    """

    configured: int
    cache: int
    events: Events
    budget: int = 0
    processes: dict[str, int] = field(default_factory=dict)  # bytes by kind of process
    decision: Decision = field(init=False)
    _sent: dict[int, int] = field(default_factory=dict)  # by process id: what it was told last
    _sizes: dict[str, int] = field(default_factory=dict)  # by model file: what its last process took without prefixes

    def __post_init__(self) -> None:
        self.decision = Decision(self.cache)
        self.budget = budget(self.configured, machine.memory_total(), machine.memory_limit())

    @property
    def used(self) -> int:
        return sum(self.processes.values())

    def room(self, parts: Parts) -> int:
        """Bytes that all engines may take together."""
        others = sum(self.told(child)[1] for child in parts.children if child.name != "engine")
        return self.budget - self.processes.get("edged", 0) - others

    @property
    def spare(self) -> int:
        """Bytes that one more process may take before the machine itself is short; negative where it is."""
        available, total = machine.memory_available(), machine.memory_total()
        return 2**62 if available is None or total is None else available - reserve(total) // 4

    @property
    def trouble(self) -> str:
        """Why no new work is taken; empty while it is."""
        if not self.decision.refuse:
            return ""
        return (
            f"the box uses {self.used / MIB:,.1f} MiB of memory, of a budget of {self.budget / MIB:,.1f} MiB; "
            "try again in some seconds, lower engine.context, or raise memory.budget_bytes"
        )

    def told(self, child: Child) -> tuple[str, int, int]:
        """A child's name, its size and what it holds of prefixes, as it said last.

        One that loads its model has said nothing yet. It counts as its predecessor with the same model did, or with
        its weights where there was none. One that is dead or could not load counts nothing.
        """
        stats, loaded = child.stats, child.loaded
        path = loaded.path if loaded is not None else ""
        if stats is not None and stats.resident and child.state != "stopped":
            self._sizes[path] = stats.resident - stats.cache_bytes
            return child.name, stats.resident, stats.cache_bytes
        if path and child.state in ("starting", "ready"):
            return child.name, self._sizes.get(path) or _size(path), 0
        return child.name, 0, 0

    async def watch(self, parts: Parts) -> None:
        """Until cancelled."""
        while True:
            reading = await asyncio.to_thread(self._read, [self.told(child) for child in parts.children])
            self._apply(reading, parts)
            await asyncio.sleep(SECONDS)

    def _apply(self, reading: Reading, parts: Parts) -> None:
        """Decide, tell the engines, and say what changed."""
        before, self.decision = self.decision, decide(reading, self.decision, self.cache)
        if self.decision.refuse != before.refuse:
            kind = "memory.refusing" if self.decision.refuse else "memory.accepting"
            logs.warn(kind, used=reading.used, budget=reading.budget, pressure=round(reading.pressure, 2))
            self.events.publish(kind, used=reading.used, budget=reading.budget)
        held: dict[int, int] = {}
        for engine in parts.engines:
            engine.admission.closed = self.trouble
            pid = engine.child.status.pid
            if engine.stats is not None and pid is not None:
                held[pid] = engine.stats.cache_bytes
        limits = shares(self.decision.cache_bytes, held)
        for engine in parts.engines:
            pid = engine.child.status.pid
            if pid in limits:
                self._limit(engine.child, pid, limits[pid])
        self._sent = {pid: sent for pid, sent in self._sent.items() if pid in limits}

    def _limit(self, child: Child, pid: int, cache_bytes: int) -> None:
        """Tell one engine, where it makes a difference; it begins with all that is configured."""
        before = self._sent.setdefault(pid, self.cache)
        if abs(before - cache_bytes) < _STEP and not (cache_bytes == 0 < before):
            return
        with contextlib.suppress(EngineError):
            child.send(Shrink(cache_bytes=cache_bytes))
            self._sent[pid] = cache_bytes
            self.events.publish("memory.cache", child=child.name, pid=pid, cache_bytes=cache_bytes)

    def _read(self, told: Sequence[tuple[str, int, int]]) -> Reading:
        """In a thread: the kernel adds up this process's pages meanwhile."""
        total = machine.memory_total()
        self.budget = budget(self.configured, total, machine.memory_limit())
        processes = {"edged": proportional_bytes() or 0}
        for name, resident, _ in told:
            processes[name] = processes.get(name, 0) + resident
        self.processes = processes
        return Reading(
            used=self.used,
            budget=self.budget,
            held=sum(held for _, _, held in told),
            pressure=machine.memory_pressure(),
            available=machine.memory_available(),
            reserve=0 if total is None else reserve(total) // 4,
        )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def shares(cache_bytes: int, held: Mapping[int, int]) -> dict[int, int]:
    """What each engine may keep: what it holds, scaled to what all may, and an equal part of what is left."""
    total = sum(held.values())
    scale = min(1.0, cache_bytes / total) if total else 1.0
    spare = max(0, cache_bytes - total) // max(len(held), 1)
    return {key: int(size * scale) + spare for key, size in held.items()}

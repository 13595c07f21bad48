"""How many threads the next step of llama.cpp should use, so that neighbours on the CPU do not stop it.

OpenMP threads wait for each other at every operation: where a neighbour holds one's core, all of them stand still for
its time slice, again and again. :class:`Policy` is pure; :class:`Governor` feeds it from ``/proc/stat`` (proc(5)), from
the box's own CPU time, and from how each step went.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SLACK: Final = 0.5  # cores: what clients and the system may use before a thread is given up for them
_SURE: Final = 0.8  # cores taken from ours that are a neighbour at one look; less must be seen twice
_QUIET: Final = 0.2  # seconds without neighbours before a thread is added again, the first time
_LONGEST_QUIET: Final = 3.2  # and at most, where adding one proved wrong again and again
_PROVEN: Final = 1.0  # seconds that an added thread must last to have been right
_STUMBLE: Final = 0.7  # CPU time by wall time and thread below which a step was held up; 0.8 to 1.05 when quiet
_SHORTEST: Final = 0.002  # seconds of a step that says something about its threads
_INTERVAL: Final = 0.06  # seconds between looks at /proc/stat, which counts in hundredths
_SOON: Final = 0.04  # at least, after a step that was held up
_HELD_UP: Final = 3  # steps in a row after which a thread is given up whoever it was
_STAT_BYTES: Final = 1 << 14


@dataclass(slots=True)
class Policy:
    """Gives way at once, comes back after a quiet while; the while doubles each time that coming back proved wrong."""

    most: int  # threads
    cores: int  # that this process may run on
    threads: int = 0
    quiet: float = _QUIET
    _doubted: bool = False  # the last look showed neighbours, too few to be sure
    _calm: float | None = None  # since when there was room for more threads
    _rose: float | None = None  # when a thread was added last, until that has proved right

    def __post_init__(self) -> None:
        self.threads = self.threads or min(self.most, self.cores)

    def observe(self, now: float, others: float) -> None:
        """``others``: cores that processes outside the box kept busy just now (mean)."""
        room = self._room(others)
        sure = room < self.threads and (self._doubted or others - (self.cores - self.threads) > _SURE)
        self._doubted = room < self.threads and not sure
        if sure:
            self._lower(now, room)
        elif room < self.threads:
            self._calm = None
        elif room == self.threads:
            self._calm = None
            self._settle(now)
        else:
            self._settle(now)
            self._calm = now if self._calm is None else self._calm
            if now - self._calm >= self.quiet:
                self.threads, self._calm, self._rose = room, None, now

    def rest(self, since: float, now: float, others: float) -> None:
        """Nothing was computed from ``since`` to ``now``, and ``others`` is the mean of that time.

        A quiet pause counts as the quiet while. A busy one takes no thread: who worked then may have gone.
        """
        if self._room(others) >= self.threads:
            self.observe(since, others)
            self.observe(now, others)

    def stumble(self, now: float) -> None:
        """A step was held up by somebody on one of our cores."""
        self._lower(now, max(1, self.threads - 1))

    def _room(self, others: float) -> int:
        return max(1, min(self.most, int(self.cores - others + _SLACK)))

    def _lower(self, now: float, threads: int) -> None:
        if self._rose is not None and now - self._rose < _PROVEN:
            self.quiet = min(self.quiet * 2, _LONGEST_QUIET)
        self.threads, self._calm, self._rose = threads, None, None

    def _settle(self, now: float) -> None:
        if self._rose is not None and now - self._rose >= _PROVEN:
            self._rose, self.quiet = None, max(self.quiet / 2, _QUIET)


def busy_seconds(stat: bytes, cores: frozenset[int], ticks: int) -> float:
    """CPU seconds that everybody used on ``cores`` since the boot, from the text of ``/proc/stat``; ``ticks`` a second.

    Time that a hypervisor took away counts as used. A line that is not there counts as idle.
    """
    busy = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith(b"cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            times = [int(field) for field in fields[:8]]
            # user, nice, system; idle and iowait are left out; irq, softirq, steal
            busy += sum(times[:3]) + sum(times[5:])
    return busy / ticks


class Governor:
    """Asked before each step, inside the turn (:mod:`edge_runtime.turn`), and told after it how it went.

    ``most``: threads; ``siblings``: CPU seconds used by the box's other processes, which are no neighbours.
    """

    def __init__(self, most: int, siblings: Callable[[], float] = lambda: 0.0) -> None:
        self._cores = frozenset(os.sched_getaffinity(0))
        self.policy = Policy(max(1, most), max(1, len(self._cores)))
        self._siblings = siblings
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._stat: int | None = None
        # Without it (no procfs, or a seal that forbids it) steps that were held up are the only sign.
        with contextlib.suppress(OSError):
            self._stat = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._due = 0.0
        self._held_up = 0  # steps in a row
        self._seen: tuple[float, float, float] | None = None  # when, busy, ours
        self._stepped = 0.0  # when the latest step began
        self._sibling_time = 0.0  # at the beginning of this step

    @property
    def threads(self) -> int:
        return self.policy.threads

    def resume(self, now: float) -> None:
        """There are steps to make again after a pause, in which others may have worked who wait for us now.

        A client that makes up its next question is no neighbour while it is answered.
        """
        if self.policy.most > 1 and self._seen is not None:
            self._sibling_time = self._siblings()
            self._look(now, paused=2 * (now - self._stepped) > now - self._seen[0])

    def before_step(self, now: float) -> int:
        """How many threads to use; ``now`` is monotonic, in seconds. Costs 2 microseconds, and 60 at each look."""
        if self.policy.most > 1:
            self._stepped = now
            self._sibling_time = self._siblings()
            if now >= self._due:
                self._look(now)
        return self.policy.threads

    def after_step(self, wall_s: float, cpu_s: float, threads: int) -> None:
        """What the step took, and the CPU time that the whole process used meanwhile."""
        if threads == 1 or wall_s < _SHORTEST:
            return
        # The embedder may have answered a question meanwhile, which takes no turn.
        if cpu_s > _STUMBLE * threads * wall_s or self._siblings() - self._sibling_time > _SHORTEST:
            self._held_up = 0
            return
        self._held_up += 1
        self._due = self._seen[0] + _SOON if self._seen is not None else 0.0
        if self._stat is None or self._held_up >= _HELD_UP:
            self._held_up = 0
            self.policy.stumble(time.monotonic())

    def close(self) -> None:
        if self._stat is not None:
            os.close(self._stat)
            self._stat = None

    def _look(self, now: float, *, paused: bool = False) -> None:
        self._due = now + _INTERVAL
        if self._stat is None:
            self.policy.observe(now, 0.0)
            return
        busy = busy_seconds(os.pread(self._stat, _STAT_BYTES, 0), self._cores, self._ticks)
        ours = time.process_time() + self._sibling_time
        before, self._seen = self._seen, (now, busy, ours)
        if before is None:
            return
        span = now - before[0]
        # Ticks that began before this span and ended in it are no neighbour's.
        others = max(0.0, (busy - before[1]) - (ours - before[2]) - 1 / self._ticks) / span
        if paused:
            self.policy.rest(before[0], now, others)
            self._due = now + _SOON
        else:
            self.policy.observe(now, others)

"""What the next step of the model evaluates, who may begin, and who makes room. Pure: values in, a plan out.

Streams that write come first: each has a row in every step. Prompts are read with the time that is left until the
strictest of those streams is due; the cost model says how many rows that is. With nobody writing, a prompt takes whole
batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.engine.costs import TILE, StepCost
from edge_runtime.engine.messages import CLASSES, Class

MARGIN = 0.95  # of a target; the rest is for sampling, messages and what the model does not foresee
LEAST_ROWS = 4  # of a prompt in each step, however short the time: it must come to its end
AGING = 0.5  # a prompt that has waited a second is preferred as if it were half a second shorter
TOGETHER = 0.25  # seconds within which prompts have come together
HOLD_MS = 2500.0  # of reading, for which the first of those waits with its first token until the last is read
CLASS_PATIENCE = 30.0  # seconds after which a waiting request counts as one class higher
SKIP_PATIENCE = 1.0  # seconds for which smaller requests may pass one that does not fit
GAIN = 0.95  # a narrower or padded step must be so much cheaper
WIDE = 8  # rows that kernels take together


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One sequence as the plan sees it."""

    slot: int
    priority: Class
    pending: int  # tokens to evaluate
    evaluated: int
    reads: bool  # its prompt is not read to the end
    arrived: float  # seconds
    last_step: float  # seconds
    adapter: str = ""
    border: int = 0  # a position that no step may cross, so that its kernels are those of a lone reading; 0: none


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows for each slot in one step, all under one adapter, and rows of nothing that make it faster."""

    rows: tuple[tuple[int, int], ...] = ()
    adapter: str = ""
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows in a step, and milliseconds that a step may take while a stream of each class writes."""

    batch: int
    targets: Mapping[Class, float]

    def target(self, priority: Class) -> float:
        return self.targets.get(priority, 100.0)


def plan(streams: Sequence[Stream], cost: StepCost, limits: Limits, now: float, *, spent: float = 0.0) -> Plan:
    """The next step; empty where there is nothing to evaluate. ``spent``: milliseconds of the writers' time gone."""
    if not streams:
        return Plan()
    adapter, groups = _group(streams)
    mine = [stream for stream in streams if stream.adapter == adapter]
    writers = [stream for stream in mine if not stream.reads][: limits.batch]
    readers = sorted((stream for stream in mine if stream.reads), key=lambda stream: _urgency(stream, cost, now))
    waiting = [stream for stream in streams if not stream.reads]
    if not readers:
        return _write(writers, adapter, cost, limits)
    hold = not waiting and _came_together(readers, cost)
    rows = [(stream.slot, 1) for stream in writers]
    budget = min((limits.target(stream.priority) for stream in waiting), default=0.0) / groups * MARGIN - spent
    cells = sum(stream.evaluated + 1 for stream in writers)
    count = len(writers)
    for reader in readers:
        room = limits.batch - count
        most = min(reader.pending, room, _until(reader, room))
        whole = most == reader.pending
        if hold and whole:
            most -= 1
            if not most:
                continue
        if most <= 0:
            break
        fit = most
        if waiting:
            fit = cost.rows_within(budget, rows=count, cells=cells, context=reader.evaluated, most=most)
            if count == len(writers):
                fit = max(fit, min(LEAST_ROWS, most))
        if not fit:
            break
        rows.append((reader.slot, fit))
        count += fit
        cells += fit * (reader.evaluated + fit // 2)
        # A prompt that reads as if it were alone shares its steps with nobody.
        if fit < most or not whole or reader.border:
            break
    return Plan(tuple(rows), adapter)


def _came_together(readers: Sequence[Stream], cost: StepCost) -> bool:
    """Whether these prompts wait for each other at their last token, and all begin to write with one step.

    Else the first would write while the others are read, a few rows beside each of its tokens: the last begins twice as
    late, and all of them end later.
    """
    if not any(stream.pending > 1 for stream in readers) or len(readers) < 2:
        return False
    if len({stream.priority for stream in readers}) > 1:
        return False  # who is more urgent does not wait for the others
    arrivals = [stream.arrived for stream in readers]
    rest = sum(stream.pending for stream in readers) * cost.predict(TILE, TILE * TILE) / TILE
    return max(arrivals) - min(arrivals) <= TOGETHER and rest <= HOLD_MS


def _group(streams: Sequence[Stream]) -> tuple[str, int]:
    """The adapter whose turn it is, the one whose last step is longest ago, and how many have writers.

    A prompt that stands behind others of its adapter has had no step: it does not make its adapter's turn longer.
    """
    served: dict[str, tuple[float, ...]] = {}
    for stream in streams:
        times = (stream.last_step,) if stream.last_step > stream.arrived else ()
        served[stream.adapter] = max(served.get(stream.adapter, ()), times)
    oldest = min(streams, key=lambda stream: served[stream.adapter] or (stream.arrived,))
    return oldest.adapter, max(len({stream.adapter for stream in streams if not stream.reads}), 1)


def _urgency(stream: Stream, cost: StepCost, now: float) -> tuple[int, float]:
    """Class, then the shortest rest first; waiting makes shorter."""
    rest = cost.predict(TILE, TILE * stream.evaluated) / TILE * stream.pending
    return CLASSES.index(stream.priority), rest - AGING * 1e3 * (now - stream.arrived)


def _until(reader: Stream, room: int) -> int:
    """Rows that a canonical reading may take at once: whole tiles up to its border, and the rest behind it."""
    if not reader.border:
        return room
    left = reader.border - reader.evaluated
    return min(left, max(room // TILE, 1) * TILE) if left > 0 else room


def _write(writers: Sequence[Stream], adapter: str, cost: StepCost, limits: Limits) -> Plan:
    """Only writers: all at once, or the one that waited longest where single rows cost less, or padded to eight."""
    count = len(writers)
    everyone = tuple((stream.slot, 1) for stream in writers)
    if not 1 < count < WIDE or not cost.knows(1):
        return Plan(everyone, adapter)
    cells = sum(stream.evaluated + 1 for stream in writers)
    together = cost.predict(count, cells)
    alone = sum(cost.predict(1, stream.evaluated + 1) for stream in writers)
    if alone < GAIN * together and alone < MARGIN * min(limits.target(stream.priority) for stream in writers):
        first = min(writers, key=lambda stream: stream.last_step)
        return Plan(((first.slot, 1),), adapter)
    if cost.knows(WIDE) and cost.knows(count) and cost.predict(WIDE, cells) < GAIN * together:
        return Plan(everyone, adapter, WIDE - count)
    return Plan(everyone, adapter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A request that has no cells yet; ``held`` while another one reads what it would read itself."""

    key: int
    priority: Class
    arrived: float
    cells: int  # that it would take now
    held: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """Who begins now (keys, in order), and whose cells are taken for that (slots)."""

    begin: tuple[int, ...] = ()
    park: tuple[int, ...] = ()


def admit(waiting: Sequence[Waiting], running: Sequence[Stream], *, free: int, slots: int, now: float) -> Admission:
    """Let requests begin in the order of their class and arrival, as far as cells and slots reach.

    Where the first of them does not fit, streams of lower classes give way, the latest first.
    """
    begin: list[int] = []
    park: list[int] = []
    victims = sorted(running, key=lambda stream: (CLASSES.index(stream.priority), stream.arrived))
    for one in sorted(waiting, key=lambda one: order(one.priority, one.arrived, now)):
        if one.held:
            continue
        taken: list[Stream] = []
        while victims and (slots < 1 or free < one.cells) and _lower(victims[-1], one):
            victim = victims.pop()
            taken.append(victim)
            slots += 1
            free += _held(victim)
        if slots >= 1 and free >= one.cells:
            begin.append(one.key)
            park += [victim.slot for victim in taken]
            slots -= 1
            free -= one.cells
            continue
        for victim in reversed(taken):
            victims.append(victim)
            slots -= 1
            free -= _held(victim)
        if now - one.arrived > SKIP_PATIENCE:
            break
    return Admission(tuple(begin), tuple(park))


def _held(stream: Stream) -> int:
    """Cells that it has, or was promised."""
    return stream.evaluated + (stream.pending if stream.reads else 0)


def order(priority: Class, arrived: float, now: float) -> tuple[float, float]:
    """What those who wait are sorted by: class, then arrival; waiting raises the class."""
    return CLASSES.index(priority) - (now - arrived) / CLASS_PATIENCE, arrived


def _lower(stream: Stream, one: Waiting) -> bool:
    return CLASSES.index(stream.priority) > CLASSES.index(one.priority)


def victim(running: Sequence[Stream], *, least: int = 2, most_urgent: Class = CLASSES[0]) -> int | None:
    """Who makes room when cells run out in the middle: the lowest class, the latest arrival.

    None where fewer than ``least`` run, for the last one is never parked for itself, and where all are of a higher
    class than ``most_urgent``.
    """
    running = [stream for stream in running if CLASSES.index(stream.priority) >= CLASSES.index(most_urgent)]
    if len(running) < least:
        return None
    return max(running, key=lambda stream: (CLASSES.index(stream.priority), stream.arrived)).slot

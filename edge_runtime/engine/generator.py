"""One model at work: requests in, steps of the model, messages out. Executes the plans of :mod:`.scheduler`.

Holds the sequences that wait, run and are parked. Knows no socket; time comes from the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_runtime.engine import scheduler
from edge_runtime.engine.adapters import Adapters
from edge_runtime.engine.cache import PrefixCache, Shelf
from edge_runtime.engine.cells import Cells
from edge_runtime.engine.costs import TILE
from edge_runtime.engine.erasure import Erasure
from edge_runtime.engine.governor import Governor
from edge_runtime.engine.lane import Lane
from edge_runtime.engine.llama import AbortedError, Llama
from edge_runtime.engine.messages import Failed, Score, Stats, Submit, Up
from edge_runtime.engine.prefixes import Reading
from edge_runtime.engine.roster import Roster
from edge_runtime.engine.scheduler import Limits, Plan
from edge_runtime.engine.scoring import FAN, Scores, Scoring
from edge_runtime.engine.sequence import Sequence, Structure
from edge_runtime.engine.steps import Steps
from edge_runtime.errors import EdgeError, EngineError
from edge_runtime.turn import Turn


@dataclass(slots=True, kw_only=True)
class Setting:
    """What a generator is given beside its model."""

    limits: Limits
    slots: int
    cache_bytes: int
    shelf: Shelf | None
    turn: Turn
    governor: Governor
    structures: Callable[[str], Structure] | None = None


class Generator:
    """Serves the requests of one model; :meth:`step` returns what there is to send."""

    def __init__(self, model: Llama, setting: Setting) -> None:
        self.model = model
        self.adapters = Adapters(model)
        self._setting = setting
        self.steps = Steps(model, setting.turn, setting.governor, scratch=setting.slots)
        self._cells = Cells(model, scratch=setting.slots)
        self._cache = PrefixCache(
            self._cells, setting.cache_bytes, setting.shelf, invariant=lambda: self.steps.invariant
        )
        self._roster = Roster(self._cells, self._cache, slots=setting.slots)
        self._lane = Lane(model, self.adapters, setting.turn, setting.governor)
        self._erasure = Erasure(self._cells, self._cache, self._roster)
        self._scores = Scores(self._cells, self._roster, self.steps, self.adapters, base=setting.slots + 1)
        self._prefilled = 0

    # ---- requests --------------------------------------------------------------------------------------------------

    def submit(self, request: Submit, arrived: float | None = None) -> None:
        """``arrived``: when, by ``time.perf_counter``; now, where it is not said.

        Raises:
            RequestError, ContextLengthError: as :class:`Sequence`, or an unknown adapter.
        """
        digest = self.adapters.digest(request.adapter) if request.adapter else ""
        structure = None
        if request.structure and self._setting.structures is not None:
            structure = self._setting.structures(request.structure)
        one = Sequence(request, self.model.vocabulary, context=self.model.context, adapter=digest, structure=structure)
        self._wait(one, arrived)

    def score(self, request: Score, arrived: float | None = None) -> None:
        """Raises as :meth:`submit`."""
        digest = self.adapters.digest(request.adapter) if request.adapter else ""
        self._wait(Scoring(request, self.model.vocabulary, context=self.model.context, adapter=digest), arrived)

    def _wait(self, one: Sequence, arrived: float | None) -> None:
        if arrived is not None:
            one.arrived = one.since = one.last_step = arrived
        self._erasure.meet(one)
        if one.request.deterministic:
            self._lane.add(one)
        else:
            self._roster.waiting.append(one)

    def cancel(self, name: str) -> list[Up]:
        """A request that is not here has ended already: its last message is on the way."""
        self._scores.drop(name)
        told = self._lane.cancel(name) or self._roster.cancel(name)
        return [] if told is None else [told]

    def purge(self, unseen: Iterable[str] = ()) -> None:
        """As :meth:`Erasure.begin`, for the lane too; cells are overwritten with the next step."""
        self._erasure.begin(unseen)
        self._lane.purge()

    def shrink(self, size: int) -> None:
        """Hold at most ``size`` bytes of prefixes."""
        self._cache.tree.limit = size
        self._cache.tree.shrink(size)

    def close(self) -> None:
        """Write what is to be kept, and free the model."""
        for one in self._roster.running.values():
            self._cache.keep(one)
        self._cache.close()
        self._lane.close()
        self.steps.governor.close()
        self.model.close()

    @property
    def busy(self) -> bool:
        return self._roster.busy or self._lane.busy or self._erasure.busy

    @property
    def patience(self) -> float:
        """Seconds for which text may be held back, to be sent with what follows: half the target between two tokens of
        a stream that is alone; none where there is anything else to do, which could make the next step longer."""
        roster = self._roster
        if len(roster.running) != 1 or roster.waiting or self._lane.busy or self._scores or self._erasure.busy:
            return 0.0
        (one,) = roster.running.values()
        return self._setting.limits.target(one.priority) / 2e3

    def stats(self) -> Stats:
        cost, running = self.steps.cost, self._roster.running.values()
        writers = [one for one in running if not one.reads]
        cells = sum(one.evaluated for one in writers)
        return Stats(
            running=len(running) + self._lane.running,
            waiting=len(self._roster.waiting) + self._lane.waiting,
            cells_used=self._cells.ledger.used,
            cells_total=self._cells.ledger.total,
            parked=self._roster.parked,
            cache_bytes=self._cache.tree.held,
            threads=self.steps.governor.threads,
            prefill_ms=cost.predict(TILE, TILE * TILE) / TILE,
            step_ms=cost.predict(max(len(writers), 1), cells),
            prefilled=self._prefilled,
            reused=dict(self._cache.reused),
        )

    # ---- steps -----------------------------------------------------------------------------------------------------

    def step(self) -> list[Up]:
        """One step of the model, or of the lane beside it; nothing where there is nothing to do."""
        try:
            self._erasure.advance()
        except EngineError:
            self._start_over()
        began = time.perf_counter()
        self.steps.learn()
        self._roster.admit()
        streams = self._roster.streams()
        out: list[Up] = []
        if not streams or self._lane.due:
            out += self._lane.step()
        if self._scores:
            out += self._scores.step()
            streams = self._roster.streams()
        if not streams:
            return out
        now = time.perf_counter()
        plan = scheduler.plan(streams, self.steps.cost, self._setting.limits, now, spent=(now - began) * 1e3)
        return out + self._execute(plan)

    def _start_over(self) -> None:
        """Nobody has cells any more: everybody who runs reads again."""
        self._scores.clear()
        for one in list(self._roster.running.values()):
            one.evaluated = 0
            self._roster.park(one)

    def _execute(self, plan: Plan) -> list[Up]:
        works = [(self._roster.running[slot], count) for slot, count in plan.rows]
        guesses = self._guess(works)
        total = sum(count for _, count in works) + len(guesses)
        while self._cells.ledger.free < total:
            slot = scheduler.victim(self._roster.streams())
            if slot is None and self._scores:
                return []  # a score is about to give its cells back
            if slot is None:
                break
            self._roster.park(self._roster.running[slot])
            works = [(one, count) for one, count in works if one.slot >= 0]
            total = sum(count for _, count in works) + len(guesses)
        if not works:
            return []
        padding = plan.padding if self._cells.ledger.free >= total + plan.padding else 0
        try:
            self.adapters.use(plan.adapter)
            rows = self.steps.evaluate(works, guesses, padding)
        except AbortedError:
            for one, _ in works:
                self._cells.drop(one.slot, one.evaluated)
            return []
        except EdgeError as error:
            return self._fail([one for one, _ in works], error)
        now, size = time.perf_counter(), total + padding
        for one, count in works:
            self._advance(one, count, len(guesses), rows=size, now=now)
        return self._sample(works, guesses, rows)

    def _guess(self, works: list[tuple[Sequence, int]]) -> list[int]:
        """What the one stream that writes may be going to say."""
        if len(works) != 1 or works[0][0].reads or not works[0][0].request.speculate:
            return []
        one, cost = works[0][0], self.steps.cost
        if one.canonical and one.greedy and not self.steps.alike(one.evaluated):
            return []
        room = min(one.limit - one.written - 1, self.model.outputs - 1, self._cells.ledger.free - 1)
        guesses = one.lookup.guess()[: max(room, 0)]
        if not guesses:
            return []
        count, context = len(guesses) + 1, one.evaluated + 1
        return (
            guesses if one.lookup.pays(guesses, cost.predict(1, context), cost.predict(count, count * context)) else []
        )

    def _advance(self, one: Sequence, count: int, guesses: int, *, rows: int, now: float) -> None:
        """Cells of a work are there now."""
        self._cells.ledger.grow(one.slot, count + guesses)
        if one.reads:
            self._prefilled += count
            reading, end = one.reading, one.evaluated + count
            if one.canonical and rows >= TILE and reading.tiled == reading.rows == one.evaluated:
                one.reading = Reading(end, end)
            elif one.canonical and 1 < rows < TILE and reading.rows == one.evaluated:
                one.reading = Reading(reading.tiled, end)
        one.evaluated += count
        one.last_step = now

    def _sample(self, works: list[tuple[Sequence, int]], guesses: list[int], rows: list[int]) -> list[Up]:
        out: list[Up] = []
        for (one, _), row in zip(works, rows, strict=True):
            if one.evaluated < len(one.tokens):
                continue
            if isinstance(one, Scoring):
                one.take_row(self.model.logits(row))
                self._scores.add(one)
                continue
            try:
                out += self._accept(one, row, guesses)
            except EdgeError as error:
                out.append(Failed.of(one.id, error))
                one.reason = "cancelled"
            if one.reason is not None:
                self._roster.leave(one)
        return out

    def _accept(self, one: Sequence, row: int, guesses: list[int]) -> list[Up]:
        """Take the row's token, and go on with the following rows as long as the guesses were right."""
        out = one.take(self.model.logits(row))
        right = 0
        while right < len(guesses) and one.reason is None and one.tokens[-1] == guesses[right]:
            right += 1
            one.evaluated += 1
            out += one.take(self.model.logits(row + right))
        if guesses:
            one.lookup.tell(len(guesses), right)
            self._cells.drop(one.slot, one.evaluated)
        return out

    def _fail(self, failed: list[Sequence], error: EdgeError) -> list[Up]:
        """The step could not be made: those in it end with an error, everybody else goes on."""
        out: list[Up] = []
        for one in failed:
            one.evaluated = 0  # its cells cannot be trusted: none are kept
            self._roster.leave(one)
            out.append(Failed.of(one.id, error))
        return out


def sequences(slots: int) -> int:
    """Sequence ids that a context needs for so many slots: a scratch one, and those that a score fans out to."""
    return slots + 1 + FAN

"""Steps of one model: rows put together, evaluated in their turn with as many threads as are good, and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from edge_runtime.engine.costs import StepCost
from edge_runtime.engine.governor import Governor
from edge_runtime.engine.llama import Llama
from edge_runtime.engine.sequence import Sequence
from edge_runtime.turn import Turn

Works = Items[tuple[Sequence, int]]  # sequences, and how many of its tokens each has evaluated

_STOOD_STILL = 3.0  # wall time by CPU time of each thread; beside neighbours it is about 2
_TICK = 0.01  # seconds: where CPU time is counted in ticks, a short step may have used none
_PROBED = (1, 1, 2, 8)  # rows of the first steps, which tell the cost model what this machine is like


@dataclass(frozen=True, slots=True)
class _Timed:
    """A step that was made; seconds."""

    threads: int
    rows: int
    cells: int
    wall: float
    cpu: float


class Steps:
    """Runs ``llama_decode``; ``scratch`` is a sequence that holds nothing between two steps."""

    def __init__(self, model: Llama, turn: Turn, governor: Governor, *, scratch: int) -> None:
        self.model = model
        self.governor = governor
        self.invariant = False  # rows come out the same alone and together
        self.owners: frozenset[str] = frozenset()  # ids of the requests in the step that runs
        self._turn = turn
        self._scratch = scratch
        self._costs: dict[int, StepCost] = {}  # by number of threads
        self._seen: _Timed | None = None  # the latest step, which the cost model does not know yet

    @property
    def cost(self) -> StepCost:
        """The cost model for the threads that are used now."""
        return self._cost(self.governor.threads)

    def _cost(self, threads: int) -> StepCost:
        if threads not in self._costs:
            known, prior = next(iter(self._costs.items()), (threads, None))
            self._costs[threads] = StepCost(prior, slower=max(known / threads, 1.0))
        return self._costs[threads]

    def probe(self) -> None:
        """Evaluate some steps and forget them: pages, threads and buffers are ready, and the cost model begins.

        Raises:
            EngineError: llama.cpp refused.
        """
        token = max(self.model.vocabulary.bos, 0)
        seen: list[bytes] = []
        for count in (min(rows, self.model.context) for rows in _PROBED):
            self._fill(0, [token] * count, 0, self._scratch)
            self.model.rows.wanted[0] = 1
            self.run(count, count * count)
            seen.append(self.model.logits(0).tobytes())
            self.model.forget(self._scratch, 0)
        # With some weight formats the kernels for several rows round otherwise than the one for one row.
        self.invariant = seen[0] == seen[-1]

    def alike(self, evaluated: int) -> bool:
        """Whether several rows come out as one by one: not where attention is split among threads (512 cells on)."""
        return self.invariant and (evaluated + 8 <= 256 or self.model.threads == 1)

    def evaluate(self, works: Works, guesses: list[int], padding: int) -> list[int]:
        """The next tokens of each work, and ``guesses`` behind those of the last, in one step.

        The first row with logits of each work, where its last token was among them.

        Raises:
            AbortedError, EngineError: as :meth:`Llama.run`; no cell of this step is valid then.
        """
        rows, first = self.model.rows, []
        at = cells = 0
        for one, count in works:
            tokens = [*one.tokens[one.evaluated : one.evaluated + count], *guesses]
            self._fill(at, tokens, one.evaluated, one.slot)
            first.append(at + count - 1)
            if count == one.pending:
                rows.wanted[at + count - 1 : at + len(tokens)] = 1
            at += len(tokens)
            cells += len(tokens) * (one.evaluated + len(tokens) // 2 + 1)
        if padding:
            self._fill(at, [0] * padding, 0, self._scratch)
        self.owners = frozenset(one.id for one, _ in works)
        try:
            self.run(at + padding, cells)
        finally:
            self.owners = frozenset()
            self.model.take_abort()
            if padding:
                self.model.forget(self._scratch, 0)
        return first

    def _fill(self, at: int, tokens: list[int], position: int, sequence: int) -> None:
        rows, end = self.model.rows, at + len(tokens)
        if len(tokens) == 1:
            # A stream that writes: a cell costs a tenth of a slice.
            rows.tokens[at], rows.positions[at] = tokens[0], position
            rows.sequences[at], rows.wanted[at] = sequence, 0
            return
        rows.tokens[at:end] = tokens
        rows.positions[at:end] = np.arange(position, position + len(tokens))
        rows.sequences[at:end] = sequence
        rows.wanted[at:end] = 0

    def run(self, count: int, cells: int) -> None:
        """Evaluate the first ``count`` rows of the model, which attend to ``cells`` in all.

        Raises:
            AbortedError, EngineError: as :meth:`Llama.run`.
        """
        self.learn()
        with self._turn:
            threads = self.governor.before_step(time.monotonic())
            self.model.use_threads(threads)
            cpu, began = time.process_time(), time.perf_counter()
            self.model.run(count)
            wall = time.perf_counter() - began
            self._seen = _Timed(threads, count, cells, wall, time.process_time() - cpu)

    def learn(self) -> None:
        """What the latest step has shown. Not called right after it, when its tokens wait to be sent."""
        if (seen := self._seen) is None:
            return
        self._seen = None
        self.governor.after_step(seen.wall, seen.cpu, seen.threads)
        # A process that was stopped, or a machine that slept, uses no CPU meanwhile: that tells nothing of steps.
        wall = min(seen.wall, _STOOD_STILL * seen.cpu / seen.threads + _TICK)
        self._cost(seen.threads).observe(seen.rows, seen.cells, wall * 1e3)

"""The deterministic lane: one request at a time, by class and arrival, in a context of its own: no neighbour is felt.

Its shapes are always the same: prompts in blocks of sixteen from their first token, then one row at a time, no shared
prefixes, no guesses. Its attention sums in the same order whatever the number of cells or threads (``exact`` of
:class:`.llama.Shape`). The same weights, build and prompt give the same text to the bit.
"""

from __future__ import annotations

import time

from edge_runtime.engine import scheduler
from edge_runtime.engine.adapters import Adapters
from edge_runtime.engine.governor import Governor
from edge_runtime.engine.llama import AbortedError, Llama, Shape
from edge_runtime.engine.messages import Done, Failed, Up
from edge_runtime.engine.sequence import Sequence
from edge_runtime.errors import EdgeError
from edge_runtime.turn import Turn

BLOCK = 16  # tokens


class Lane:
    """Deterministic requests of one model; the context is made at the first."""

    def __init__(self, model: Llama, adapters: Adapters, turn: Turn, governor: Governor) -> None:
        self._model = model
        self._adapters = adapters
        self._turn = turn
        self._governor = governor
        self._context: Llama | None = None
        self._waiting: list[Sequence] = []
        self._running: Sequence | None = None
        self._last = False
        self._stale = False  # its cells are to be overwritten when its request ends

    @property
    def busy(self) -> bool:
        return self._running is not None or bool(self._waiting)

    @property
    def running(self) -> int:
        return int(self._running is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def due(self) -> bool:
        """Every second step is the lane's, while both have work."""
        self._last = self.busy and not self._last
        return self._last

    def add(self, one: Sequence) -> None:
        self._waiting.append(one)

    def cancel(self, name: str) -> Done | None:
        """The end of a request of this lane; None: it has no such."""
        if self._running is not None and self._running.id == name:
            one = self._running
            self._end()
            return one.done("cancelled")
        for one in self._waiting:
            if one.id == name:
                self._waiting.remove(one)
                return one.done("cancelled")
        return None

    def step(self) -> list[Up]:
        """One block of a prompt, or one token."""
        if self._running is None:
            if not self._waiting:
                return []
            now = time.perf_counter()
            self._running = min(self._waiting, key=lambda one: scheduler.order(one.priority, one.since, now))
            self._waiting.remove(self._running)
            self._running.began = now
        one = self._running
        try:
            context = self._open()
            self._adapters.use(one.request.adapter, context)
            if one.evaluated == 0:
                context.clear()
            rest = len(one.prompt) - one.evaluated
            tokens = one.tokens[one.evaluated :][: min(rest, BLOCK) if rest > 0 else 1]
            with self._turn:
                context.use_threads(self._governor.before_step(time.monotonic()))
                context.decode(tokens, one.evaluated)
            one.evaluated += len(tokens)
            out = [] if one.evaluated < len(one.tokens) else one.take(context.logits())
        except AbortedError:
            return []
        except EdgeError as error:
            self._end()
            return [Failed.of(one.id, error)]
        if one.reason is not None:
            self._end()
        return out

    def _end(self) -> None:
        self._running = None
        if self._stale:
            self.purge()

    def _open(self) -> Llama:
        if self._context is None:
            shape = Shape(context=self._model.context, threads=self._model.threads, batch=BLOCK, exact=True)
            self._context = self._model.sibling(shape)
        return self._context

    def purge(self) -> None:
        """Overwrite what its cells hold, now, or when the request that runs ends: they are that one's alone."""
        self._stale = self._running is not None
        if self._context is not None and not self._stale:
            self._context.clear()

    def close(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

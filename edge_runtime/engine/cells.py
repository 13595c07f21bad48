"""Which KV cells are whose: llama.cpp's memory calls, and a ledger of how many cells they leave.

Cells of a shared prefix are held once, by whoever evaluated them first; they are free when the last holder leaves. The
ledger only counts: llama.cpp keeps the same references itself and never says how many cells are taken.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.engine.llama import Llama, binding
from edge_runtime.errors import EngineError


@dataclass(slots=True, eq=False)
class Run:
    """Cells that were evaluated for one sequence; ``holders`` maps each sequence to how many of them it needs."""

    holders: dict[int, int] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        return max(self.holders.values(), default=0)


class Ledger:
    """Counts cells by sequence. Pure."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._runs: dict[int, list[tuple[int, Run]]] = {}  # sequence -> (first position, run)

    @property
    def used(self) -> int:
        seen = {id(run): run for runs in self._runs.values() for _, run in runs}
        return sum(run.cells for run in seen.values())

    @property
    def free(self) -> int:
        return self.total - self.used

    def __len__(self) -> int:
        return len(self._runs)

    def runs(self) -> list[tuple[int, Run]]:
        """Every run of cells once, with its first position; a sequence's earlier ones come before its later ones."""
        seen = {id(run): (start, run) for runs in self._runs.values() for start, run in runs if run.cells}
        return sorted(seen.values(), key=lambda found: found[0])

    def grow(self, sequence: int, cells: int) -> None:
        """``sequence`` has so many more cells of its own at its end."""
        runs = self._runs.setdefault(sequence, [])
        if not runs or len(runs[-1][1].holders) > 1 or sequence not in runs[-1][1].holders:
            runs.append((self.length(sequence), Run({sequence: 0})))
        runs[-1][1].holders[sequence] += cells

    def length(self, sequence: int) -> int:
        """Cells that ``sequence`` has, shared ones included."""
        runs = self._runs.get(sequence)
        if not runs:
            return 0
        start, run = runs[-1]
        return start + run.holders[sequence]

    def share(self, source: int, target: int, length: int) -> None:
        """``target`` holds the first ``length`` cells of ``source`` too; it has none of its own yet."""
        shared: list[tuple[int, Run]] = []
        for start, run in self._runs.get(source, []):
            if start >= length:
                break
            run.holders[target] = min(run.holders[source], length - start)
            shared.append((start, run))
        self._runs[target] = shared

    def cut(self, sequence: int, length: int) -> None:
        """``sequence`` keeps its first ``length`` cells only."""
        kept: list[tuple[int, Run]] = []
        for start, run in self._runs.pop(sequence, []):
            if start >= length:
                del run.holders[sequence]
            else:
                run.holders[sequence] = min(run.holders[sequence], length - start)
                kept.append((start, run))
        if kept:
            self._runs[sequence] = kept

    def clear(self) -> None:
        self._runs.clear()


class Cells:
    """The KV cells of one context; ``scratch`` is a sequence that nobody else uses."""

    def __init__(self, model: Llama, scratch: int) -> None:
        self._c = binding()
        self._model = model
        self._scratch = scratch
        self.ledger = Ledger(model.context)
        self._size = 0.0  # bytes of one cell's blob

    def share(self, source: int, target: int, length: int) -> None:
        """Let ``target``, which has none, hold the first ``length`` cells of ``source`` (no copy is made)."""
        self._c.llama_memory_seq_cp(self._model.memory, source, target, 0, length)
        self.ledger.share(source, target, length)

    def drop(self, sequence: int, length: int = 0) -> bool:
        """Keep the first ``length`` cells; false where the model's memory cannot be cut: then none are kept."""
        whole = bool(self._c.llama_memory_seq_rm(self._model.memory, sequence, length, -1))
        if not whole:
            self._c.llama_memory_seq_rm(self._model.memory, sequence, -1, -1)
        self.ledger.cut(sequence, length if whole else 0)
        if not len(self.ledger):
            # Cells that were taken anew would lie in another order than the first time, and sums come out otherwise.
            self._c.llama_memory_clear(self._model.memory, False)
        return whole

    def read(self, sequence: int, start: int, end: int) -> bytes:
        """The cells of positions ``start`` to ``end`` of ``sequence``, as :meth:`write` takes them.

        Raises:
            EngineError: llama.cpp gave less than it announced.
        """
        c, memory, context = self._c, self._model.memory, self._model.handle
        c.llama_memory_seq_cp(memory, sequence, self._scratch, start, end)
        try:
            size = int(c.llama_state_seq_get_size(context, self._scratch))
            blob = bytes(size)  # filled in place, before anybody else has seen it: another copy takes as long again
            if c.llama_state_seq_get_data(context, _pointer(blob), size, self._scratch) != size:
                raise EngineError("llama.cpp could not save a prefix; ask again")
        finally:
            c.llama_memory_seq_rm(memory, self._scratch, -1, -1)
        self._size = size / max(end - start, 1)
        return blob

    def write(self, sequence: int, blob: bytes, start: int, end: int) -> bool:
        """Put the cells of positions ``start`` to ``end`` back behind those that ``sequence`` has.

        The blob must be one of :meth:`read`, unchanged: llama.cpp believes it. False: it did not fit, nothing changed.
        """
        c, memory = self._c, self._model.memory
        if c.llama_state_seq_set_data(self._model.handle, _pointer(blob), len(blob), self._scratch) != len(blob):
            c.llama_memory_seq_rm(memory, self._scratch, -1, -1)
            return False
        c.llama_memory_seq_cp(memory, self._scratch, sequence, start, end)
        c.llama_memory_seq_rm(memory, self._scratch, -1, -1)
        self.ledger.grow(sequence, end - start)
        return True

    def overwrite(self, room: int) -> bool:
        """Overwrite every cell that nobody holds, with the others put aside into ``room`` bytes of memory.

        False: that is not room enough; nothing was done.

        Raises:
            EngineError: llama.cpp did not take back what it gave: no sequence has cells any more.
        """
        c, memory, saved = self._c, self._model.memory, []
        runs = self.ledger.runs()
        if self.ledger.used * self._size > room:
            return False
        for start, run in runs:
            holder = max(run.holders, key=lambda one: run.holders[one])
            try:
                blob = self.read(holder, start, start + run.cells)
            except (EngineError, MemoryError):
                return False
            room -= len(blob)
            if room < 0:
                return False
            saved.append(blob)
        c.llama_memory_clear(memory, True)
        for (start, run), blob in zip(runs, saved, strict=True):
            if c.llama_state_seq_set_data(self._model.handle, _pointer(blob), len(blob), self._scratch) != len(blob):
                self.clear()
                raise EngineError("llama.cpp did not take back the cells of a purge; ask again")
            for holder, count in run.holders.items():
                c.llama_memory_seq_cp(memory, self._scratch, holder, start, start + count)
            c.llama_memory_seq_rm(memory, self._scratch, -1, -1)
        return True

    def clear(self) -> None:
        """Drop every cell, and overwrite what it held."""
        self._c.llama_memory_clear(self._model.memory, True)
        self.ledger.clear()


def _pointer(blob: bytes) -> Any:
    """Where the bytes lie; good as long as ``blob`` is."""
    return ctypes.cast(ctypes.c_char_p(blob), ctypes.POINTER(ctypes.c_uint8))

"""What a purge leaves to do: nobody takes up what was read before it, and the cells that held it are overwritten."""

from __future__ import annotations

from collections.abc import Iterable

from edge_runtime.engine.cache import PrefixCache
from edge_runtime.engine.cells import Cells
from edge_runtime.engine.roster import Roster
from edge_runtime.engine.sequence import Sequence


class Erasure:
    """For one context. Requests that are here at a purge go on, and leave nothing behind."""

    def __init__(self, cells: Cells, cache: PrefixCache, roster: Roster) -> None:
        self._cells = cells
        self._cache = cache
        self._roster = roster
        self._stale = False  # cells that nobody holds are to be overwritten
        self._leaving: set[Sequence] = set()  # those who were here at the latest purge, and are still
        self._unseen: set[str] = set()  # ids of those that had been asked for then, and had not come here

    @property
    def busy(self) -> bool:
        return self._stale or bool(self._leaving)

    def begin(self, unseen: Iterable[str]) -> None:
        """Forget every kept prefix now, and what those who are here, and ``unseen`` (ids), have read when they end."""
        self._cache.purge()
        self._leave_no_trace([*self._roster.running.values(), *self._roster.waiting])
        self._unseen.update(unseen)
        self._stale = True

    def meet(self, one: Sequence) -> None:
        """A request comes: it may be one of the unseen."""
        if one.id in self._unseen:
            self._unseen.discard(one.id)
            self._leave_no_trace([one])

    def _leave_no_trace(self, those: list[Sequence]) -> None:
        for one in those:
            one.keeps = False
        self._leaving.update(those)

    def advance(self) -> None:
        """Between two steps: overwrite, once at the purge, and again when the last of those who were here has ended.

        Raises:
            EngineError: as :meth:`Cells.overwrite`; who runs has no cells any more.
        """
        running = self._roster.running.values()
        if self._leaving:
            self._leaving.intersection_update([*running, *self._roster.waiting])
            self._stale = self._stale or not self._leaving
        if not self._stale:
            return
        self._stale = False
        if running:
            tree = self._cache.tree
            self._stale = not self._cells.overwrite(tree.limit - tree.held)
        else:
            self._cells.clear()

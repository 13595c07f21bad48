"""Prompts that were read before, wherever they lie: in a running sequence, in host memory, on disk.

Joins the tree (:mod:`.prefixes`) with the cells and the snapshots. Prefixes that nobody runs keep no cells: idle cells
slow every step, and putting a thousand tokens back takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from typing import Protocol

import numpy as np

from edge_runtime.engine.cells import Cells
from edge_runtime.engine.costs import TILE
from edge_runtime.engine.messages import CLASSES
from edge_runtime.engine.prefixes import LEAST, PUBLIC, Node, Owner, Reading, Tokens, Tree, exact, shared_length
from edge_runtime.engine.sequence import Sequence
from edge_runtime.engine.snapshots import Entry
from edge_runtime.errors import EngineError

WORTH_DISK = 256  # tokens: a segment so long, or one that was of use, is written to disk
AWAIT = 32  # tokens: for less, a request does not wait until another has read them


class Shelf(Protocol):
    """The disk (:class:`edge_runtime.engine.snapshots.Snapshots`)."""

    def index(self) -> list[Entry]: ...
    def entry(
        self, tokens: Items[int], start: int, *, domain: str = "", adapter: str = "", label: str = "", size: int = 0
    ) -> Entry: ...
    def save(self, entry: Entry, blob: bytes) -> bool: ...
    def load(self, key: str) -> bytes | None: ...
    def touch(self, key: str) -> None: ...
    def purge(self) -> int: ...
    def close(self) -> None: ...


class PrefixCache:
    """One context's prefixes; ``invariant`` says whether rows come out the same in steps of any size."""

    def __init__(
        self, cells: Cells, limit: int, shelf: Shelf | None, *, invariant: Callable[[], bool] = lambda: True
    ) -> None:
        self._cells = cells
        self._invariant = invariant
        self._shelf = shelf
        self.tree = Tree(limit)
        self.reused: dict[str, int] = {"live": 0, "memory": 0, "disk": 0}
        if shelf is not None:
            for entry in sorted(shelf.index(), key=lambda entry: entry.start):
                self._recall(entry)

    def _recall(self, entry: Entry) -> None:
        """A node for a snapshot, where the path before it is known too."""
        owner, tokens = Owner(entry.domain, entry.adapter), np.array(entry.tokens, np.int32)
        parents = self.tree.find(owner, tokens[: entry.start])
        if parents.length == entry.start:
            tiled, rows = (int(part) for part in entry.label.split(","))
            node = self.tree.add(owner, tokens, entry.start, parents=parents.nodes, reading=Reading(tiled, rows))
            node.key, node.size = entry.key, entry.size

    def awaits(self, one: Sequence, running: Iterable[Sequence]) -> bool:
        """Whether a running sequence is just reading what ``one`` would have to read itself.

        It does not wait for one of a lower class, which others of its own class may keep from reading on.
        """
        if not one.params.cache_prompt:
            return False
        known = self.tree.find(one.owner, one.prompt_array).length
        for other in running:
            shared = _shared(one, other, len(other.prompt))
            urgent = CLASSES.index(other.priority) <= CLASSES.index(one.priority)
            if other.reads and urgent and shared > max(known, other.evaluated) + AWAIT:
                return True
        return False

    def need(self, one: Sequence, running: Iterable[Sequence]) -> int:
        """Cells that ``one`` would take for what is there of it."""
        live = max((_shared(one, other, other.evaluated) for other in running), default=0)
        return len(one.tokens) - (live if one.params.cache_prompt else 0)

    def begin(self, one: Sequence, running: Iterable[Sequence]) -> None:
        """Give ``one``, which has a slot, all that is known of its tokens; the last one is left to evaluate."""
        one.evaluated = 0
        tokens = one.array
        if not one.params.cache_prompt:
            return
        most = len(tokens) - 1
        sources = [(_shared(one, other, other.evaluated), other) for other in running if other is not one]
        live, source = max(sources, key=lambda found: found[0], default=(0, None))
        known = self.tree.find(one.owner, tokens)
        shared = max(live, known.length)
        if not one.parked:
            one.tell_divergence(shared)
        if source is not None and live >= known.length and live > 0:
            length = self._fit(one, min(live, most), source.reading)
            if length:
                self._cells.share(source.slot, one.slot, length)
                self._took(one, length, "live", source.reading)
            return
        length = self._fit(one, min(known.length, most), known.reading)
        if length and self._restore(one, [node for node in known.nodes if node.start < length], length):
            one.match = known
            self._took(one, length, known.tier, known.reading)

    def _fit(self, one: Sequence, shared: int, reading: Reading) -> int:
        if not (one.canonical and one.greedy):
            return shared
        if not self._invariant():
            shared = shared // TILE * TILE  # only whole blocks are read as they would be anew
        return exact(len(one.prompt), shared, reading)

    def _took(self, one: Sequence, length: int, tier: str, reading: Reading) -> None:
        one.evaluated = length
        one.reading = reading.upto(length)
        if not one.parked:
            one.cached = min(length, len(one.prompt))
            one.tier = tier  # type: ignore[assignment]
            self.reused[tier] += one.cached

    def _restore(self, one: Sequence, nodes: list[Node], length: int) -> bool:
        """Write the cells of ``nodes`` into the sequence; what is damaged or gone is forgotten."""
        for node, following in zip(nodes, [*nodes[1:], None], strict=True):
            blob = node.blob
            if blob is None and self._shelf is not None and node.key is not None:
                blob = self._shelf.load(node.key)
                if blob is not None:
                    self.tree.hold(node, blob)
            end = length if following is None else following.start
            if blob is None or not self._cells.write(one.slot, blob, node.start, end):
                if blob is None:
                    self.tree.forget(node)
                self._cells.drop(one.slot)
                return False
            node.hits += 1
            if node.key is not None and self._shelf is not None:
                self._shelf.touch(node.key)
        return True

    def keep(self, one: Sequence) -> None:
        """Save what was evaluated for ``one`` and is not kept yet; its cells may go then."""
        if not one.keeps or self.tree.limit <= 0:
            return
        tokens = one.array[: one.evaluated]
        public = min(one.public, len(tokens))
        parents: list[Node] = []
        # What is public hangs on nothing private: whoever may not see that could not reach it.
        for owner, end in ((Owner(PUBLIC, one.owner.adapter), public), (one.owner, len(tokens))):
            start, parents = self._known(one, owner, tokens[:end])
            if end - start >= LEAST:
                try:
                    blob = self._cells.read(one.slot, start, end)
                except (EngineError, MemoryError):
                    return  # it can be read again
                node = self.tree.add(owner, tokens[:end], start, parents=parents, reading=one.reading)
                self.tree.hold(node, blob)
                parents.append(node)
        self._store(parents)

    def _known(self, one: Sequence, owner: Owner, tokens: Tokens) -> tuple[int, list[Node]]:
        """How many of ``tokens`` need not be kept again, and the nodes that hold those."""
        known = self.tree.find(owner, tokens)
        start = known.length
        if one.canonical and known.reading != one.reading.upto(start):
            # What is kept came out of other kernels: a lone reading could not use it, and this one can.
            start = min(one.cached, start)
        return start, [node for node in known.nodes if node.start < start]

    def _store(self, nodes: list[Node]) -> None:
        """Write to disk what is worth it; a segment is worth nothing without those before it."""
        if self._shelf is None or not any(len(node.tokens) >= WORTH_DISK or node.hits for node in nodes):
            return
        for node in nodes:
            if node.key is None and node.blob is not None:
                path = np.concatenate([*(part.tokens[: _next(part, node)] for part in node.path()[:-1]), node.tokens])
                entry = self._shelf.entry(
                    path.tolist(),
                    node.start,
                    domain=node.owner.domain,
                    adapter=node.owner.adapter,
                    label=f"{node.reading.tiled},{node.reading.rows}",
                    size=len(node.blob),
                )
                if not self._shelf.save(entry, node.blob):
                    return
                node.key = entry.key

    def purge(self) -> None:
        """Forget everything, on disk too."""
        self.tree.clear()
        if self._shelf is not None:
            self._shelf.purge()

    def close(self) -> None:
        if self._shelf is not None:
            self._shelf.close()


def _next(part: Node, last: Node) -> int:
    """How many of the part's tokens belong to the path to ``last``."""
    path = last.path()
    return path[path.index(part) + 1].start - part.start


def _shared(one: Sequence, other: Sequence, evaluated: int) -> int:
    """Tokens of ``one`` that ``other`` has read and ``one`` may have."""
    if other is one or other.slot < 0 or other.owner.adapter != one.owner.adapter or not other.keeps:
        return 0
    length = shared_length(one.prompt_array, other.prompt_array)
    if length == len(one.prompt_array) == len(other.prompt_array) or length == len(other.prompt_array):
        length = shared_length(one.array, other.array)
    if other.owner.domain != one.owner.domain:
        length = min(length, other.public)
    return min(length, evaluated)

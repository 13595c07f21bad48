"""The tree of prompts that were read before: whose they are, where their cells lie, how much of a new one they are.

Pure: it knows tokens and blobs, not llama.cpp. A node holds one segment of a path; a branch may leave from its middle,
since a blob cannot be cut. A node belongs to one domain, or to nobody (public); a search sees its own domain's and the
public ones only, so that what another user asked shows neither in a text nor in a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_runtime.engine.costs import TILE
from edge_runtime.engine.messages import Tier

PUBLIC = "*"  # no user is called so
LEAST = 16  # tokens: shorter segments are read again rather than kept
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Owner:
    """What must agree before cells are shared, beside the tokens: who asks, and the adapter's digest."""

    domain: str
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """With which of llama.cpp's kernels a prompt's tokens were evaluated: to the bit, results differ between them.

    The first ``tiled`` tokens in steps of 64 and more, those up to ``rows`` in smaller ones; the rest is unknown.
    """

    tiled: int = 0
    rows: int = 0

    def upto(self, length: int) -> Reading:
        return Reading(min(self.tiled, length), min(self.rows, length))


@dataclass(slots=True, eq=False)
class Node:
    """Tokens ``start`` to ``start + len(tokens)`` of a path; its parent's path is shared up to ``start``."""

    owner: Owner
    start: int
    tokens: Tokens
    parent: Node | None
    reading: Reading
    blob: bytes | None = None
    key: str | None = None  # of the snapshot on disk
    size: int = 0  # bytes of the blob, here or on disk
    hits: int = 0
    used: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def path(self) -> list[Node]:
        """From the root's child to this one."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known beginning: ``length`` tokens, the nodes that hold them, and the slowest tier among those."""

    length: int
    nodes: tuple[Node, ...] = ()
    tier: Tier = "none"
    reading: Reading = Reading()


def shared_length(one: Tokens, other: Tokens) -> int:
    """Tokens that two sequences have in common at their beginning."""
    size = min(len(one), len(other))
    differs = np.flatnonzero(one[:size] != other[:size])
    return int(differs[0]) if len(differs) else size


def exact(length: int, shared: int, reading: Reading) -> int:
    """How many of ``shared`` tokens a prompt of ``length`` may take over and still come out as if read anew.

    Read alone and anew, whole blocks of 64 tokens go through the tiled kernel, the rest through the one for few rows.
    """
    border = length // TILE * TILE
    tiled = min(shared, border, reading.tiled) // TILE * TILE
    if tiled < border or reading.tiled > border:
        return min(tiled, border - TILE) if length == border else tiled
    tail = length - border
    if tail == 0:
        return max(border - TILE, 0)
    # One row alone is a kernel of its own: a tail of several must leave two.
    return max(border, min(shared, reading.rows, length - (1 if tail == 1 else 2)))


class Tree:
    """All kept prefixes; ``limit`` bounds the bytes held in host memory, ``most`` the segments known at all."""

    def __init__(self, limit: int, most: int = 1024) -> None:
        self.limit = limit
        self.most = most
        self._roots: list[Node] = []
        self._clock = itertools.count(1)

    def __iter__(self) -> Iterator[Node]:
        return itertools.chain.from_iterable(map(_below, self._roots))

    @property
    def held(self) -> int:
        """Bytes in host memory."""
        return sum(node.size for node in self if node.blob is not None)

    def find(self, owner: Owner, tokens: Tokens) -> Match:
        """The longest path that ``owner`` may see and ``tokens`` begins with."""
        best: tuple[int, int] = (0, 0)  # of two that reach as far, the one of which more is known
        last: Node | None = None
        pending = [(0, node) for node in self._roots]
        while pending:
            depth, node = pending.pop()
            if node.start > depth or not _visible(node, owner):
                continue
            end = node.start + shared_length(node.tokens, tokens[node.start :])
            if end <= depth:
                continue
            if (end, node.reading.rows) > best:
                best, last = (end, node.reading.rows), node
            pending += [(end, child) for child in node.children]
        if last is None:
            return Match(0)
        self._touch(last)
        return _match(last.path(), best[0])

    def _touch(self, node: Node) -> None:
        """It was of use, and so were those before it: a node leaves after those behind it."""
        for part in reversed(node.path()):
            part.used = next(self._clock)

    def add(self, owner: Owner, tokens: Tokens, start: int, *, parents: Sequence[Node], reading: Reading) -> Node:
        """A new segment ``tokens[start:]`` behind the path of ``parents`` (:attr:`Match.nodes`)."""
        parent = next((node for node in reversed(parents) if node.start < start), None)
        node = Node(owner, start, tokens[start:].copy(), parent, reading)
        (self._roots if parent is None else parent.children).append(node)
        self._touch(node)
        return node

    def hold(self, node: Node, blob: bytes) -> None:
        """Put a node's cells into host memory; the least recently used leave it for that.

        Cells over the limit by themselves are not held, and a node that lies nowhere then is forgotten.
        """
        node.size = len(blob)
        if node.size <= self.limit:
            node.blob = blob
            self._touch(node)
            self.shrink(self.limit)
        elif node.key is None:
            self.forget(node)

    def shrink(self, limit: int) -> None:
        """Hold at most ``limit`` bytes; nodes that lie nowhere any more are forgotten."""
        held = self.held
        oldest = sorted(self, key=lambda node: node.used)
        for node in oldest[: -self.most] if len(oldest) > self.most else ():
            held -= sum(one.size for one in _below(node) if one.blob is not None)
            self.forget(node)
        for node in sorted(self, key=lambda node: node.used):
            if held <= limit:
                break
            if node.blob is not None:
                if node.key is None:
                    held -= sum(one.size for one in _below(node) if one.blob is not None)
                    self.forget(node)
                else:
                    held -= node.size
                    node.blob = None

    def forget(self, node: Node) -> list[Node]:
        """Take a node out, with what hangs on it: without it that cannot be reached. What was taken out."""
        siblings = self._roots if node.parent is None else node.parent.children
        if node not in siblings:
            return []
        siblings.remove(node)
        gone = list(_below(node))
        for one in gone:
            one.blob = None
        return gone

    def clear(self) -> None:
        self._roots.clear()


def _below(node: Node) -> Iterator[Node]:
    """The node, and all that hang on it."""
    pending = [node]
    while pending:
        one = pending.pop()
        yield one
        pending.extend(one.children)


def _visible(node: Node, owner: Owner) -> bool:
    return node.owner.adapter == owner.adapter and node.owner.domain in (PUBLIC, owner.domain)


def _match(nodes: list[Node], depth: int) -> Match:
    tier: Tier = "memory" if all(node.blob is not None for node in nodes) else "disk"
    return Match(depth, tuple(nodes), tier, _reading(nodes, depth))


def _reading(nodes: list[Node], depth: int) -> Reading:
    """How the tokens of a path were read, each node answering for those that it holds itself."""
    tiled = rows = 0
    for node, following in zip(nodes, [*nodes[1:], None], strict=True):
        start, end = node.start, depth if following is None else following.start
        if rows < start or (tiled < start and node.reading.tiled > start):
            break
        if tiled == start:
            tiled = min(max(node.reading.tiled, start), end)
        rows = min(max(node.reading.rows, start), end)
    return Reading(tiled, rows)

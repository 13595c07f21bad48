"""The tree of read prompts against a plain list of them, and what of a kept prompt is exact to take over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.costs import TILE
from edge_runtime.engine.prefixes import PUBLIC, Node, Owner, Reading, Tokens, Tree, exact, shared_length

_OWNERS = [Owner("uid:1"), Owner("uid:2"), Owner("uid:1", "adapter"), Owner(PUBLIC)]
_TEXTS = st.lists(st.integers(0, 1), min_size=1, max_size=10)
_ADDED = st.lists(st.tuples(st.sampled_from(_OWNERS), _TEXTS), max_size=14)


def _array(tokens: list[int]) -> Tokens:
    return np.array(tokens, np.int32)


def _add(tree: Tree, owner: Owner, tokens: list[int], *, size: int = 1) -> Node | None:
    known = tree.find(owner, _array(tokens))
    if known.length == len(tokens):
        return None
    node = tree.add(owner, _array(tokens), known.length, parents=known.nodes, reading=Reading())
    tree.hold(node, bytes(size))
    return node


def _path(node: Node) -> list[int]:
    tokens: list[int] = []
    for part in node.path():
        tokens = tokens[: part.start] + part.tokens.tolist()
    return tokens


def _longest(known: list[tuple[Owner, list[int]]], owner: Owner, tokens: list[int]) -> int:
    seen = [path for whose, path in known if whose.adapter == owner.adapter and whose.domain in (PUBLIC, owner.domain)]
    return max((shared_length(_array(path), _array(tokens)) for path in seen), default=0)


@given(_ADDED, st.sampled_from(_OWNERS), _TEXTS)
def test_find_gives_the_longest_beginning_that_its_owner_may_see(
    added: list[tuple[Owner, list[int]]], owner: Owner, tokens: list[int]
) -> None:
    tree = Tree(10**9)
    for whose, text in added:
        _add(tree, whose, text)
    match = tree.find(owner, _array(tokens))
    assert match.length == _longest(added, owner, tokens)
    # What the match names holds these tokens, one node behind the other.
    depth = 0
    for node, end in zip(match.nodes, [*(node.start for node in match.nodes[1:]), match.length], strict=False):
        assert node.start <= depth <= end <= node.end
        assert node.tokens[: end - node.start].tolist() == tokens[node.start : end]
        assert node.owner.domain in (PUBLIC, owner.domain)
        assert node.owner.adapter == owner.adapter
        depth = end
    assert depth == match.length


def test_what_another_user_or_another_adapter_has_read_is_not_found() -> None:
    tree = Tree(10**9)
    _add(tree, Owner("uid:1"), [1, 2, 3])
    assert tree.find(Owner("uid:1"), _array([1, 2, 3])).length == 3
    assert tree.find(Owner("uid:2"), _array([1, 2, 3])).length == 0
    assert tree.find(Owner("uid:1", "adapter"), _array([1, 2, 3])).length == 0


def test_what_is_public_is_found_by_everybody() -> None:
    tree = Tree(10**9)
    _add(tree, Owner(PUBLIC), [1, 2, 3])
    for domain in ("uid:1", "uid:2", "somebody"):
        assert tree.find(Owner(domain), _array([1, 2, 9])).length == 2


def test_a_branch_behind_the_shorter_of_two_siblings_is_found_all_the_same() -> None:
    tree = Tree(10**9)
    _add(tree, Owner("uid:1"), [1, 2, 3, 4, 5])
    _add(tree, Owner(PUBLIC), [1, 2, 3])
    _add(tree, Owner(PUBLIC), [1, 2, 3, 4, 5, 6, 7, 8])
    assert tree.find(Owner("uid:1"), _array([1, 2, 3, 4, 5, 6, 7, 8])).length == 8


@given(_ADDED, st.integers(1, 30), st.integers(0, 40))
def test_shrinking_keeps_the_limit_and_leaves_a_tree_in_which_all_can_be_reached(
    added: list[tuple[Owner, list[int]]], size: int, limit: int
) -> None:
    tree = Tree(10**9)
    for whose, text in added:
        _add(tree, whose, text, size=size)
    before = tree.held
    tree.shrink(limit)
    assert tree.held <= limit
    # No more was given up than had to be: one more segment would not have fitted.
    assert tree.held == min(before, limit // size * size)
    left = [(node.owner, _path(node)) for node in tree]
    for node in tree:
        assert node.blob is not None
        assert tree.find(node.owner, _array(_path(node))).length == len(_path(node))
    for whose, text in added:
        assert tree.find(whose, _array(text)).length == _longest(left, whose, text)


@given(_ADDED, st.integers(0, 20))
def test_a_limit_is_kept_while_the_tree_grows(added: list[tuple[Owner, list[int]]], limit: int) -> None:
    tree = Tree(limit)
    for whose, text in added:
        _add(tree, whose, text, size=3)
        assert tree.held <= limit


def test_a_conversation_longer_than_the_limit_loses_its_end_and_not_its_beginning() -> None:
    tree = Tree(30)
    owner = Owner("uid:1")
    for length in (1, 2, 3, 4):
        _add(tree, owner, list(range(length)), size=10)
    assert tree.held == 30
    assert tree.find(owner, _array(list(range(4)))).length == 3


def test_the_least_recently_used_of_two_conversations_goes_first() -> None:
    tree = Tree(40)
    for first in (1, 2):
        _add(tree, Owner("uid:1"), [first], size=10)
        _add(tree, Owner("uid:1"), [first, 5], size=10)
    assert tree.find(Owner("uid:1"), _array([1, 5])).length == 2
    _add(tree, Owner("uid:1"), [3], size=10)
    assert tree.find(Owner("uid:1"), _array([1, 5])).length == 2
    assert tree.find(Owner("uid:1"), _array([2, 5])).length == 1


def test_a_segment_over_the_limit_drives_nothing_else_out() -> None:
    tree = Tree(20)
    _add(tree, Owner("uid:1"), [1], size=10)
    _add(tree, Owner("uid:1"), [2], size=21)
    assert tree.find(Owner("uid:1"), _array([1])).length == 1
    assert tree.find(Owner("uid:1"), _array([2])).length == 0
    assert tree.held == 10


def test_a_segment_that_lies_on_disk_too_stays_known_when_memory_is_short() -> None:
    tree = Tree(10)
    node = _add(tree, Owner("uid:1"), [1], size=10)
    assert node is not None
    node.key = "somewhere"
    tree.shrink(0)
    match = tree.find(Owner("uid:1"), _array([1]))
    assert (match.length, match.tier, tree.held) == (1, "disk", 0)


@given(_ADDED, st.data())
def test_what_is_forgotten_is_not_found_and_the_rest_is(
    added: list[tuple[Owner, list[int]]], data: st.DataObject
) -> None:
    tree = Tree(10**9)
    for whose, text in added:
        _add(tree, whose, text)
    nodes = list(tree)
    if not nodes:
        return
    gone = tree.forget(data.draw(st.sampled_from(nodes)))
    left = list(tree)
    assert {id(node) for node in nodes} == {id(node) for node in [*gone, *left]}
    assert not {id(node) for node in gone} & {id(node) for node in left}
    paths = [(node.owner, _path(node)) for node in left]
    for whose, text in added:
        assert tree.find(whose, _array(text)).length == _longest(paths, whose, text)


# ---- exactness -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cold:
    """A prompt of ``length`` that is read alone and anew: the kernel of each token."""

    length: int

    def kernel(self, token: int) -> str:
        border = self.length // TILE * TILE
        if token < border:
            return "tiled"
        return "one" if self.length - border == 1 else "rows"


def _kept(reading: Reading, token: int) -> str:
    return "tiled" if token < reading.tiled else "rows" if token < reading.rows else "unknown"


_LENGTHS = st.one_of(
    st.integers(1, 400), st.builds(lambda tiles, by: max(tiles * TILE + by, 1), st.integers(0, 5), st.integers(-3, 3))
)
_READINGS = st.builds(lambda tiled, more: Reading(tiled, tiled + more), _LENGTHS, st.integers(0, 140)) | st.just(
    Reading()
)


@given(_LENGTHS, st.integers(0, 400), _READINGS)
def test_what_is_taken_over_and_what_is_read_behind_it_go_through_the_kernels_of_a_lone_reading(
    length: int, shared: int, reading: Reading
) -> None:
    shared = min(shared, length - 1)
    taken = exact(length, shared, reading)
    cold = _Cold(length)
    assert 0 <= taken <= max(shared, 0)
    for token in range(taken):
        assert _kept(reading, token) == cold.kernel(token)
    # The rest is read in whole tiles up to the border, and behind it in one step.
    border = length // TILE * TILE
    if taken < border:
        assert taken % TILE == 0
    else:
        rest = length - taken
        assert rest > 0
        assert cold.kernel(length - 1) == ("one" if rest == 1 else "rows")


@given(st.integers(0, 300), st.integers(0, 60))
def test_a_prompt_that_was_read_alone_is_taken_over_nearly_whole_by_one_that_is_longer(length: int, more: int) -> None:
    border = length // TILE * TILE
    reading = Reading(border, length if length - border != 1 else border)
    longer = length + more + 2
    wanted = length if longer // TILE * TILE == border and reading.rows == length else border
    assert exact(longer, length, reading) == wanted


_SEGMENTS = st.lists(st.tuples(st.integers(1, 90), st.integers(0, 400), st.integers(0, 90)), min_size=1, max_size=4)


@given(_SEGMENTS, st.integers(1, 400))
def test_the_reading_of_a_path_claims_no_more_than_each_of_its_nodes_does(
    segments: list[tuple[int, int, int]], cut: int
) -> None:
    tree, owner = Tree(10**9), Owner("uid:1")
    start, nodes, readings = 0, [], []
    for size, tiled, rows in segments:
        reading = Reading(min(tiled, start + size), min(tiled + rows, start + size))
        path = np.arange(start + size, dtype=np.int32)
        nodes.append(tree.add(owner, path, start, parents=nodes, reading=reading))
        readings.append((start, start + size, reading))
        start += size
    match = tree.find(owner, np.arange(min(cut, start), dtype=np.int32))
    assert match.length == min(cut, start)
    assert match.reading.tiled <= match.reading.rows <= match.length
    for first, end, reading in readings:
        for token in range(first, min(end, match.length)):
            claimed = _kept(match.reading, token)
            assert claimed == "unknown" or claimed == _kept(reading, token)

"""Places in front of what reads texts, by values."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.text_queue import MOST_CHARACTERS, TextQueue
from edge_runtime.errors import BusyError

MOST, PER_USER = 6, 3


def test_one_more_than_fit_is_refused_also_to_the_owner_and_a_place_that_is_left_is_free() -> None:
    queue = TextQueue(MOST, PER_USER, "requests for embeddings")
    orders = [queue.enter("uid 0", ["x"], privileged=True, now=0.0) for _ in range(MOST)]
    with pytest.raises(BusyError, match="6 requests for embeddings") as refused:
        queue.enter("uid 0", ["x"], privileged=True, now=0.0)
    assert (refused.value.reason, refused.value.retry_after) == ("queue_full", 2)
    queue.leave(orders[0], now=1.0, served=True)
    queue.enter("uid 1000", ["x"], privileged=False, now=1.0)


def test_one_users_flood_leaves_places_to_others() -> None:
    queue = TextQueue(MOST, PER_USER, "requests for embeddings")
    for _ in range(PER_USER):
        queue.enter("uid 1000", ["x"], privileged=False, now=0.0)
    with pytest.raises(BusyError, match="uid 1000 has 3 requests") as refused:
        queue.enter("uid 1000", ["x"], privileged=False, now=0.0)
    assert refused.value.reason == "quota"
    queue.enter("uid 1001", ["x"], privileged=False, now=0.0)


def test_much_text_is_let_in_alone_and_not_behind_other_text() -> None:
    queue = TextQueue(MOST, PER_USER, "requests for embeddings")
    large = "x" * MOST_CHARACTERS
    order = queue.enter("a", [large], privileged=False, now=0.0)
    with pytest.raises(BusyError, match="as much text"):
        queue.enter("b", ["x"], privileged=False, now=0.0)
    queue.leave(order, now=1.0, served=False)
    queue.enter("b", ["x"], privileged=False, now=1.0)
    with pytest.raises(BusyError, match="as much text"):
        queue.enter("a", [large], privileged=False, now=1.0)


def test_when_to_come_back_follows_how_fast_the_embedder_was_and_how_much_waits() -> None:
    queue = TextQueue(2, 2, "requests for embeddings")
    text = "x" * 900
    queue.leave(queue.enter("a", [text], privileged=False, now=10.0), now=15.0, served=True)
    first, _ = (queue.enter("a", [text], privileged=False, now=20.0) for _ in range(2))
    with pytest.raises(BusyError) as refused:
        queue.enter("b", [text], privileged=False, now=20.0)
    assert refused.value.retry_after == 10
    # Cancelled at once: that says nothing of the embedder.
    queue.leave(first, now=20.0, served=False)
    queue.enter("b", [text], privileged=False, now=20.0)
    with pytest.raises(BusyError) as again:
        queue.enter("b", [text], privileged=False, now=20.0)
    assert again.value.retry_after == 10


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 10**7), st.floats(0, 100))))
def test_no_bound_is_ever_passed_and_every_refusal_says_when(steps: list[tuple[bool, int, int, float]]) -> None:
    queue, now, told = TextQueue(MOST, PER_USER, "requests for embeddings"), 0.0, list[int | None]()
    for come, who, size, seconds in steps:
        now += seconds
        if come:
            try:
                queue.enter(str(who), ["x" * size], privileged=who == 0, now=now)
            except BusyError as error:
                told.append(error.retry_after)
        elif queue.orders:
            queue.leave(queue.orders[who % len(queue.orders)], now=now, served=bool(size % 2))
        counts = Counter(order.user for order in queue.orders)
        assert len(queue.orders) <= MOST
        assert all(count <= PER_USER for user, count in counts.items() if user != "0")
        assert len(queue.orders) <= 1 or sum(order.cost for order in queue.orders) <= MOST_CHARACTERS
    assert all(seconds is not None and 1 <= seconds <= 120 for seconds in told)

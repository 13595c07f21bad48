"""Places in front of the engine: by class, by user, by deadline; and what a refused client is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.admission import LONGEST_SECONDS, SAFETY, Admission, Bid, Limits, Place
from edge_runtime.engine.messages import CLASSES, Class, Stats
from edge_runtime.errors import BusyError, DeadlineError

LIMITS = Limits(slots=4, queue=16, per_user=6)
STATS = Stats(running=1, waiting=0, cells_used=0, cells_total=4096, prefill_ms=2.0, step_ms=20.0)


def enter(door: Admission, user: str = "uid 1", stats: Stats | None = STATS, **fields: object) -> Place:
    return door.enter(Bid(user=user, **fields), stats=stats)  # type: ignore[arg-type]


def fill(door: Admission, priority: Class) -> int:
    """How many of a class get in, each from a user of its own."""
    for number in range(1000):
        try:
            enter(door, f"uid {number}", priority=priority)
        except BusyError:
            return number
    raise AssertionError("no end of places")


def test_a_flood_of_one_class_leaves_room_for_those_above_it() -> None:
    door = Admission(LIMITS)
    assert fill(door, "batch") == 14
    assert fill(door, "interactive") == 4
    assert fill(door, "realtime") == 2
    assert door.present == 20


def test_a_queue_of_one_place_is_anybody_s() -> None:
    assert fill(Admission(Limits(slots=1, queue=1, per_user=9)), "batch") == 2


def test_a_place_that_is_given_back_is_free_again() -> None:
    door = Admission(Limits(slots=1, queue=0, per_user=9))
    place = enter(door)
    with pytest.raises(BusyError):
        enter(door, "uid 2")
    door.leave(place)
    assert enter(door, "uid 2").bid.user == "uid 2"


def test_one_user_has_a_quota_and_the_owner_has_none() -> None:
    door = Admission(LIMITS)
    for _ in range(6):
        enter(door, "uid 7")
    with pytest.raises(BusyError, match="uid 7 has 6 requests here") as refused:
        enter(door, "uid 7")
    assert refused.value.reason == "quota"
    assert enter(door, "uid 8")
    for _ in range(8):
        enter(door, "uid 0", privileged=True)


def test_a_request_for_several_texts_takes_as_many_places() -> None:
    door = Admission(LIMITS)
    enter(door, places=4)
    with pytest.raises(BusyError):
        enter(door, places=3)
    assert door.waiting()["interactive"] == 4


def test_a_full_queue_says_why_and_when_to_come_back() -> None:
    door = Admission(Limits(slots=1, queue=0, per_user=9))
    place = enter(door, tokens=400, whole=True)
    door.begin(place, 100)
    with pytest.raises(BusyError, match="no place is left for batch") as refused:
        enter(door, "uid 2", priority="batch")
    assert refused.value.reason == "queue_full"
    assert refused.value.retry_after == 6  # 300 tokens at 20 ms
    with pytest.raises(BusyError) as unknown:
        enter(door, "uid 2", stats=None)
    assert unknown.value.retry_after == 2


def test_a_deadline_that_cannot_be_met_is_refused_with_the_estimate() -> None:
    door = Admission(LIMITS)
    with pytest.raises(DeadlineError, match=r"about 2\.0 s, and 0\.5 s are allowed") as refused:
        enter(door, tokens=100, whole=True, deadline_ms=500)
    assert refused.value.reason == "deadline"
    assert door.present == 0


@pytest.mark.parametrize("deadline_ms", [1400, 2000, 60_000])
def test_a_deadline_that_a_guess_misses_by_little_is_tried(deadline_ms: int) -> None:
    assert enter(Admission(LIMITS), tokens=100, whole=True, deadline_ms=deadline_ms)


def test_a_text_that_may_end_by_itself_is_not_refused_for_its_limit() -> None:
    door = Admission(LIMITS)
    assert enter(door, tokens=100_000, deadline_ms=1000)
    place = enter(door)
    door.learn(place, prompt_tokens=0, cached_tokens=0, completion_tokens=90, stopped=True)
    with pytest.raises(DeadlineError):
        enter(door, tokens=100_000, deadline_ms=1000)


def test_an_engine_that_has_told_nothing_refuses_no_deadline() -> None:
    assert enter(Admission(LIMITS), stats=None, tokens=10_000, whole=True, deadline_ms=1)


def test_a_deadline_counts_what_the_cache_spared_this_user_before_and_nobody_else() -> None:
    door = Admission(LIMITS)
    late: dict[str, object] = {"prompt_bytes": 40_000, "tokens": 1, "whole": True, "deadline_ms": 2000}
    place = enter(door, user="ana", prompt_bytes=40_000)
    door.learn(place, prompt_tokens=10_000, cached_tokens=9_990, completion_tokens=1, stopped=False)
    door.leave(place)
    door.leave(enter(door, "ana", STATS, **late))
    with pytest.raises(DeadlineError):
        enter(door, "ben", STATS, **late)


def test_time_that_a_request_has_spent_counts_against_its_deadline() -> None:
    door = Admission(LIMITS)
    door.leave(enter(door, tokens=10, whole=True, deadline_ms=2000))
    with pytest.raises(DeadlineError):
        enter(door, tokens=10, whole=True, deadline_ms=2000, spent_ms=8000.0)


def test_users_without_end_are_not_all_remembered() -> None:
    door = Admission(LIMITS)
    for number in range(2000):
        place = enter(door, user=f"uid {number}")
        door.learn(place, prompt_tokens=10, cached_tokens=9, completion_tokens=1, stopped=False)
        door.leave(place)
    assert len(door._fresh) < 500


def test_those_below_are_not_waited_for_and_those_before_are() -> None:
    door = Admission(Limits(slots=1, queue=32, per_user=99))
    enter(door, priority="batch", tokens=500, whole=True, prompt_bytes=32_000)
    alone = door.estimate(Bid(user="x", priority="realtime", tokens=10, whole=True), STATS)
    assert alone.last_ms == pytest.approx(200.0)
    behind = door.estimate(Bid(user="x", priority="batch", tokens=10, whole=True), STATS)
    assert behind.last_ms == pytest.approx(200.0 + 500 * 20 + 10_000 * 2.0)


def test_finished_requests_correct_how_many_bytes_a_token_has() -> None:
    door = Admission(LIMITS)
    for _ in range(60):
        place = enter(door, prompt_bytes=1000)
        door.learn(place, prompt_tokens=500, cached_tokens=0, completion_tokens=1, stopped=False)
        door.leave(place)
    assert door.bytes_per_token == pytest.approx(2.0, rel=0.01)
    door.learn(enter(door, prompt_bytes=2), prompt_tokens=30, cached_tokens=0, completion_tokens=1, stopped=False)
    assert door.bytes_per_token == pytest.approx(2.0, rel=0.01)


BIDS = st.builds(
    Bid,
    user=st.sampled_from(["uid 1", "uid 2", "token"]),
    priority=st.sampled_from(CLASSES),
    privileged=st.booleans(),
    places=st.integers(1, 8),
    prompt_bytes=st.integers(0, 10_000),
    tokens=st.integers(1, 4096),
    whole=st.booleans(),
    deadline_ms=st.none() | st.integers(1, 100_000),
)


@given(st.lists(st.tuples(BIDS, st.booleans())))
def test_no_limit_is_ever_passed_and_every_refusal_names_a_time(steps: list[tuple[Bid, bool]]) -> None:
    door, told = Admission(LIMITS), []
    for bid, leaves in steps:
        before = door.present
        try:
            place = door.enter(bid, stats=STATS)
        except BusyError as refused:
            told.append(refused.retry_after)
        except DeadlineError:
            assert door.estimate(bid, STATS).last_ms > SAFETY * (bid.deadline_ms or 0)
        else:
            assert before + bid.places <= LIMITS.places(bid.priority)
            before = door.present
            if leaves:
                door.leave(place)
                before -= bid.places
        assert door.present == before
        own = [place for place in door.places if not place.bid.privileged]
        for user in {place.bid.user for place in own}:
            assert sum(place.bid.places for place in own if place.bid.user == user) <= LIMITS.per_user
        assert door.present == sum(place.bid.places for place in door.places)
        assert door.present == sum(door.waiting().values()) + sum(door.running().values())
    assert all(seconds is not None and 1 <= seconds <= LONGEST_SECONDS for seconds in told)

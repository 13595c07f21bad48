"""Threads under neighbours that come, go and return: sequences of values, and one real neighbour."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.governor import Governor, Policy, busy_seconds

STEP = 0.06  # seconds between two looks
STAT = b"""cpu  300 0 100 9000 50 0 10 5 0 0
cpu0 200 10 60 4000 20 0 7 3 0 0
cpu1 100 0 40 5000 30 0 3 2 0 0
intr 12345 0 0
ctxt 999
procs_running 3
procs_blocked 0
"""


def watch(policy: Policy, seconds: float, others: float, start: float) -> tuple[list[int], float]:
    """The threads after each look while ``others`` cores are busy, and the time then."""
    seen = []
    now = start
    while now < start + seconds:
        now += STEP
        policy.observe(now, others)
        seen.append(policy.threads)
    return seen, now


def test_a_neighbour_takes_a_thread_at_the_first_look_and_gives_it_back_after_a_quiet_while() -> None:
    policy = Policy(most=2, cores=2)
    quiet, now = watch(policy, 1.0, 0.1, 0.0)
    assert set(quiet) == {2}
    busy, now = watch(policy, 2.0, 0.9, now)
    assert set(busy) == {1}
    after, _ = watch(policy, 1.0, 0.0, now)
    assert after[0] == 1
    assert after[-1] == 2


def test_half_a_neighbour_takes_a_thread_only_when_it_is_seen_twice() -> None:
    policy = Policy(most=2, cores=2)
    seen = []
    for others in (0.7, 0.0, 0.7, 0.7):
        policy.observe(len(seen) * STEP, others)
        seen.append(policy.threads)
    assert seen == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("cores", "most", "others", "threads"),
    [(4, 4, 0.2, 4), (4, 4, 1.0, 3), (4, 4, 2.0, 2), (4, 4, 3.9, 1), (8, 4, 3.9, 4), (8, 4, 6.0, 2), (1, 1, 1.0, 1)],
)
def test_as_many_threads_run_as_cores_are_free(cores: int, most: int, others: float, threads: int) -> None:
    policy = Policy(most=most, cores=cores)
    seen, _ = watch(policy, 1.0, others, 0.0)
    assert seen[-1] == threads


def test_a_neighbour_that_comes_and_goes_is_believed_less_and_less() -> None:
    policy = Policy(most=2, cores=2)
    now = 0.0
    changes = []
    for _ in range(20):
        busy, now = watch(policy, 0.3, 1.0, now)
        rest, now = watch(policy, 0.6, 0.0, now)
        changes.append(sum(one != two for one, two in pairwise([*busy, *rest])))
    assert changes[0] == 1
    assert sum(changes[10:]) <= 2
    # One that stays away is believed again in the end.
    calm, now = watch(policy, 20.0, 0.0, now)
    assert calm[-1] == 2
    assert policy.quiet < 0.5


def test_a_step_that_was_held_up_takes_a_thread_before_the_next_look() -> None:
    policy = Policy(most=4, cores=4)
    policy.stumble(0.0)
    assert policy.threads == 3


@given(st.lists(st.tuples(st.floats(0.001, 5), st.floats(0, 9), st.booleans()), max_size=60), st.integers(1, 8))
def test_whatever_happens_the_threads_stay_within_their_bounds(
    events: list[tuple[float, float, bool]], most: int
) -> None:
    policy = Policy(most=most, cores=4)
    now = 0.0
    for wait, others, slow in events:
        now += wait
        policy.observe(now, others)
        if slow:
            policy.stumble(now)
        assert 1 <= policy.threads <= most
        assert 0 < policy.quiet <= 3.2


def test_the_load_counts_only_cores_that_this_process_may_use_and_what_a_hypervisor_took() -> None:
    assert busy_seconds(STAT, frozenset({0, 1}), 100) == pytest.approx(4.25)
    assert busy_seconds(STAT, frozenset({1}), 100) == pytest.approx(1.45)


@pytest.mark.parametrize("stat", [b"", b"cpu", b"cpu0 1 2 3\n", b"cpu0\ncpu1 5\nprocs_running 1", b"cpuidle x y"])
def test_an_older_or_shorter_table_is_read_as_far_as_it_goes(stat: bytes) -> None:
    assert busy_seconds(stat, frozenset({0, 1}), 100) < 1


def test_a_quiet_pause_between_requests_gives_the_threads_back_at_once() -> None:
    policy = Policy(most=2, cores=2, threads=1)
    policy.rest(10.0, 15.0, 0.1)
    assert policy.threads == 2


def looks(governor: Governor, seconds: float) -> Iterable[int]:
    """What it says while this process only looks and sleeps."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield governor.before_step(time.monotonic())
        time.sleep(0.02)


def test_real_neighbours_take_threads_and_our_own_work_takes_none() -> None:
    cores = len(os.sched_getaffinity(0))
    governor = Governor(cores)
    list(looks(governor, 0.5))
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        assert min(looks(governor, 1.0)) == 1
    finally:
        for one in neighbours:
            one.kill()
            one.wait()
    governor.close()


def test_somebody_who_worked_between_two_requests_and_has_gone_takes_no_thread() -> None:
    cores = len(os.sched_getaffinity(0))
    governor = Governor(cores)
    list(looks(governor, 0.5))
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    time.sleep(0.5)
    for one in neighbours:
        one.kill()
        one.wait()
    try:
        governor.resume(time.monotonic())
        assert governor.before_step(time.monotonic()) == cores
    finally:
        governor.close()


def test_a_neighbour_beside_requests_that_follow_each_other_closely_is_no_pause() -> None:
    cores = len(os.sched_getaffinity(0))
    governor = Governor(cores)
    list(looks(governor, 0.5))
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    seen = []
    try:
        for _ in range(20):
            seen += looks(governor, 0.05)
            governor.resume(time.monotonic())
    finally:
        for one in neighbours:
            one.kill()
            one.wait()
        governor.close()
    assert seen[-1] == 1


def test_a_busy_pause_gives_no_thread_back() -> None:
    policy = Policy(most=2, cores=2, threads=1)
    policy.rest(10.0, 15.0, 1.8)
    assert policy.threads == 1


def test_three_steps_in_a_row_that_were_held_up_take_a_thread_and_short_or_single_ones_say_nothing() -> None:
    governor = Governor(2)
    governor.after_step(0.02, 0.038, 2)
    governor.after_step(0.001, 0.0, 2)
    governor.after_step(0.02, 0.005, 1)
    assert governor.threads == 2
    for _ in range(2):
        governor.after_step(0.2, 0.2, 2)
    governor.after_step(0.02, 0.04, 2)
    for _ in range(2):
        governor.after_step(0.2, 0.2, 2)
    assert governor.threads == 2
    governor.after_step(0.2, 0.2, 2)
    assert governor.threads == 1
    governor.close()

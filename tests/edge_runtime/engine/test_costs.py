"""The cost model of a step against machines whose costs are known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.costs import TILE, StepCost

_LINES = {0: (5.0, 1.0, 1.5), 1: (9.0, 3.2, 0.9), 2: (30.0, 2.4, 0.4)}  # milliseconds: a step, a row, 1000 row-cells


def _true(rows: int, cells: int) -> float:
    base, row, cell = _LINES[0 if rows == 1 else 1 if rows < TILE else 2]
    return base + row * rows + cell * cells / 1000


def _steps(chance: random.Random, count: int) -> list[tuple[int, int]]:
    found = []
    for _ in range(count):
        rows = chance.choice([1, 1, 2, 3, 5, 8, 16, 24, 33, 48, 64, 80, 96, 128])
        found.append((rows, rows * chance.randrange(1, 3000)))
    return found


def _taught(seed: int, *, noise: float, count: int = 600) -> StepCost:
    chance, cost = random.Random(seed), StepCost()
    for rows, cells in _steps(chance, count):
        cost.observe(rows, cells, _true(rows, cells) * chance.gauss(1, noise))
    return cost


@pytest.mark.parametrize("seed", range(5))
def test_steps_that_vary_by_a_twentieth_are_foretold_within_a_tenth(seed: int) -> None:
    cost = _taught(seed, noise=0.05)
    wrong = [
        abs(cost.predict(rows, cells) / _true(rows, cells) - 1) for rows, cells in _steps(random.Random(seed + 99), 300)
    ]
    assert sorted(wrong)[int(len(wrong) * 0.9)] < 0.1
    assert sum(wrong) / len(wrong) < 0.05


def test_a_number_of_rows_that_departs_from_the_line_is_foretold_by_its_own_history() -> None:
    chance, cost = random.Random(3), StepCost()
    for _ in range(300):
        for rows, milliseconds in ((2, 12.0), (5, 40.0), (8, 20.0), (16, 44.0)):
            cost.observe(rows, rows * 100, milliseconds * chance.gauss(1, 0.03))
    assert cost.predict(5, 500) == pytest.approx(40, rel=0.1)
    assert cost.predict(8, 800) == pytest.approx(20, rel=0.1)


def test_a_machine_that_becomes_twice_as_slow_is_followed() -> None:
    cost, chance = _taught(1, noise=0.03), random.Random(4)
    for rows, cells in _steps(chance, 800):
        cost.observe(rows, cells, 2 * _true(rows, cells))
    for rows, cells in _steps(chance, 50):
        assert cost.predict(rows, cells) == pytest.approx(2 * _true(rows, cells), rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_one_step_of_a_thousand_times_its_cost_is_forgotten_after_a_few_others(seed: int) -> None:
    cost = _taught(seed, noise=0.02)
    cost.observe(8, 800, 1000 * _true(8, 800))
    # At once it may be believed a little, and never more than that the step costs twice as much.
    assert cost.predict(8, 800) < 2 * _true(8, 800)
    for rows, cells in _steps(random.Random(seed), 60):
        cost.observe(rows, cells, _true(rows, cells))
    for rows, cells in _steps(random.Random(seed + 7), 60):
        assert cost.predict(rows, cells) == pytest.approx(_true(rows, cells), rel=0.15)


def test_one_step_in_twenty_that_is_disturbed_moves_a_prediction_by_less_than_half() -> None:
    chance, cost = random.Random(8), StepCost()
    for number, (rows, cells) in enumerate(_steps(chance, 1000)):
        cost.observe(rows, cells, _true(rows, cells) * (50 if number % 20 == 10 else 1))
    wrong = [cost.predict(rows, cells) / _true(rows, cells) - 1 for rows, cells in _steps(chance, 200)]
    assert sum(wrong) / len(wrong) < 0.5


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 10**6), st.floats(0.001, 10**5)), max_size=60))
def test_whatever_was_seen_a_prediction_is_a_positive_number(seen: list[tuple[int, int, float]]) -> None:
    cost = StepCost()
    for rows, cells, milliseconds in seen:
        cost.observe(rows, cells, milliseconds)
    for rows in (1, 2, 8, 63, 64, 128):
        assert 0 < cost.predict(rows, rows * 500) < float("inf")


_PLACES = st.fixed_dictionaries(
    {
        "rows": st.integers(0, 30),
        "cells": st.integers(0, 9000),
        "context": st.integers(0, 4000),
        "most": st.integers(-3, 300),
    }
)


@given(st.integers(0, 50), st.floats(0, 2000), st.floats(0, 500), _PLACES)
def test_more_time_never_gives_fewer_rows_and_no_time_more_than_there_are(
    seed: int, budget: float, more: float, place: dict[str, int]
) -> None:
    cost = _taught(seed % 3, noise=0.3, count=30 + seed)
    few = cost.rows_within(budget, **place)
    many = cost.rows_within(budget + more, **place)
    assert 0 <= few <= many <= max(place["most"], 0)


@given(st.integers(0, 20), st.floats(0, 2000), st.integers(0, 30), st.integers(0, 4000), st.integers(1, 300))
def test_rows_that_are_said_to_fit_are_foretold_to_fit(
    seed: int, budget: float, rows: int, context: int, most: int
) -> None:
    cost = _taught(seed, noise=0.2, count=60)
    count = cost.rows_within(budget, rows=rows, cells=rows * 300, context=context, most=most)
    if count:
        assert cost.predict(rows + count, rows * 300 + count * (context + count // 2)) <= budget


def test_a_cost_model_for_another_number_of_threads_begins_where_the_first_one_is() -> None:
    first = _taught(2, noise=0.02)
    second = StepCost(first)
    assert second.predict(16, 3000) == first.predict(16, 3000)
    half = StepCost(first, slower=2.0)
    assert half.predict(16, 3000) == pytest.approx(2 * first.predict(16, 3000))
    second.observe(16, 3000, 500.0)
    assert second.predict(16, 3000) > first.predict(16, 3000)


def test_what_was_never_seen_is_not_known() -> None:
    cost = StepCost()
    assert not cost.knows(1)
    cost.observe(1, 10, 5.0)
    assert cost.knows(1)
    assert not cost.knows(8)


def test_thousands_of_steps_that_are_all_alike_spoil_nothing() -> None:
    cost = _taught(5, noise=0.02)
    for number in range(5000):
        cells = 4 * (100 + number % 50)
        cost.observe(4, cells, _true(4, cells) * (1.05 if number % 3 else 0.9))
    assert cost.predict(4, 500) == pytest.approx(_true(4, 500), rel=0.1)
    for rows in (2, 8, 32, 48):
        assert cost.predict(rows, rows * 300) == pytest.approx(_true(rows, rows * 300), rel=1.0)

"""The memory budget by values: what is let go, when new work is refused, and when both end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.child import Child, State
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.memory import MIB, Decision, Memory, Reading, budget, decide, reserve, shares
from edge_runtime.engine.messages import Load, Stats

MOST = 128 * MIB


def engine(path: Path) -> Child:
    """As after its start: it loads ``path``, and has said nothing yet."""
    load = Load(path=str(path), name="writer")
    child = Child("engine", "none", options=[], find=lambda: load, events=Events())
    child.loaded = load
    return child


def stats(resident: int, cache: int = 0) -> Stats:
    return Stats(running=0, waiting=0, cells_used=0, cells_total=0, resident=resident, cache_bytes=cache)


OPEN = Decision(MOST)


def reading(used: int, held: int = 0, **fields: float) -> Reading:
    """A budget of 1000 MiB; sizes in MiB."""
    base = Reading(used=used * MIB, budget=1000 * MIB, held=held * MIB)
    return replace(base, **fields)  # type: ignore[arg-type]


def test_far_below_the_budget_all_that_is_configured_may_be_kept() -> None:
    assert decide(reading(400, 100), OPEN, MOST) == OPEN


def test_near_the_budget_prefixes_are_let_go_and_nobody_is_refused() -> None:
    found = decide(reading(960, 100), OPEN, MOST)
    assert found.cache_bytes == 60 * MIB
    assert not found.refuse


def test_prefixes_that_can_still_be_let_go_refuse_nobody() -> None:
    found = decide(reading(1050, 120), OPEN, MOST)
    assert found == Decision(0, refuse=False)


def test_over_the_budget_without_prefixes_new_work_is_refused_until_there_is_room() -> None:
    refusing = decide(reading(1010, 0), OPEN, MOST)
    assert refusing.refuse
    assert decide(reading(950, 0), refusing, MOST).refuse
    assert not decide(reading(900, 0), refusing, MOST).refuse


def test_what_was_let_go_may_come_back_as_far_as_there_is_room() -> None:
    tight = Decision(10 * MIB)
    assert decide(reading(880, 10), tight, MOST).cache_bytes == 10 * MIB
    assert decide(reading(800, 10), tight, MOST).cache_bytes == 60 * MIB
    assert decide(reading(300, 10), tight, MOST).cache_bytes == MOST


def test_a_machine_whose_memory_others_have_spent_counts_as_a_budget_that_is_used_up() -> None:
    short = reading(600, 100, available=50 * MIB, reserve=500 * MIB)
    assert decide(short, OPEN, MOST) == Decision(0, refuse=False)
    assert decide(replace(short, used=700 * MIB), OPEN, MOST).refuse


def test_pressure_halves_the_prefixes_and_refuses_nobody() -> None:
    assert decide(reading(500, 100, pressure=0.3), OPEN, MOST) == Decision(50 * MIB)


@given(
    st.integers(0, 4000), st.integers(0, 300), st.floats(0, 1), st.builds(Decision, st.integers(0, 300), st.booleans())
)
def test_the_limit_stays_between_nothing_and_what_is_configured(
    used: int, held: int, pressure: float, before: Decision
) -> None:
    found = decide(reading(used, min(held, used), pressure=pressure), before, MOST)
    assert 0 <= found.cache_bytes <= MOST


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), max_size=40))
def test_a_box_that_obeys_stays_within_its_budget(steps: list[tuple[int, int]]) -> None:
    """Requests grow by up to 6 % of the budget between two looks, and end; prefixes fill what they may."""
    decision, firm, held = OPEN, 500, 0
    for growth, ended in steps:
        firm = max(500, firm + (0 if decision.refuse else growth) - ended * 20)
        held = min(decision.cache_bytes // MIB, MOST // MIB)
        decision = decide(reading(firm + held, held), decision, MOST)
        assert firm + decision.cache_bytes // MIB <= 1000 or decision.cache_bytes == 0
        assert decision.refuse or firm <= 1000


def test_the_budget_is_what_is_configured_or_what_there_is_less_a_reserve() -> None:
    assert budget(5, 10**9, 10**8) == 5
    assert budget(0, 8192 * MIB, None) == 7168 * MIB
    assert budget(0, 8192 * MIB, 512 * MIB) == 384 * MIB
    assert reserve(100 * MIB) == 50 * MIB


def test_engines_share_by_what_they_hold_and_the_rest_equally() -> None:
    assert shares(100, {1: 50, 2: 150}) == {1: 25, 2: 75}
    assert shares(100, {1: 10, 2: 30}) == {1: 40, 2: 60}
    assert shares(100, {}) == {}
    assert shares(100, {1: 0}) == {1: 100}


def test_a_child_that_loads_counts_its_weights_and_after_a_death_what_it_took_before(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * 4096)
    memory, child = Memory(0, MOST, Events()), engine(weights)
    assert memory.told(child) == ("engine", 4096, 0)
    child.state, child.stats = "ready", stats(300 * MIB, 40 * MIB)
    assert memory.told(child) == ("engine", 300 * MIB, 40 * MIB)
    # It dies, and the next one loads: the prefixes are gone, the rest comes back.
    child.state, child.stats = "starting", None
    assert memory.told(child) == ("engine", 260 * MIB, 0)


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_child_that_is_gone_counts_nothing(state: State, tmp_path: Path) -> None:
    memory, child = Memory(0, MOST, Events()), engine(tmp_path / "gone")
    assert memory.told(child) == ("engine", 0, 0)
    child.state, child.stats = state, None
    assert memory.told(child) == ("engine", 0, 0)

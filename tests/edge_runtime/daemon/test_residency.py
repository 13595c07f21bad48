"""Who has to leave memory for a newcomer, by values and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.residency import Plan, Refuse, Tenant, decide, expired, surplus


def tenant(name: str, size: int, used: float = 0.0, *, active: bool = False, pinned: bool = False) -> Tenant:
    return Tenant(name=name, size=size, used=used, active=active, pinned=pinned)


@pytest.mark.parametrize(
    ("needed", "tenants", "outcome"),
    [
        (100, (), Plan()),
        (101, (), Refuse(101, 100, ())),
        (50, (tenant("a", 50),), Plan()),
        (51, (tenant("a", 50),), Plan(("a",))),
        (51, (tenant("a", 50, pinned=True),), Refuse(51, 50, ())),
        (51, (tenant("a", 50, active=True),), Refuse(51, 50, ("a",))),
        (51, (tenant("a", 50, active=True, pinned=True),), Refuse(51, 50, ())),
        # The older one leaves, whatever the order they are told in.
        (40, (tenant("new", 40, 2.0), tenant("old", 40, 1.0)), Plan(("old",))),
        # A small old one whose leaving would not be enough stays where a large newer one has to go anyway.
        (80, (tenant("small", 10, 1.0), tenant("large", 80, 2.0)), Plan(("large",))),
        # Both are needed.
        (95, (tenant("small", 10, 1.0), tenant("large", 80, 2.0)), Plan(("small", "large"))),
        # The idle one alone is not enough, and the active one would be.
        (90, (tenant("idle", 20), tenant("busy", 60, active=True)), Refuse(90, 40, ("busy",))),
        # Not even with the active one gone: it is pointless to wait.
        (90, (tenant("pinned", 20, pinned=True), tenant("busy", 60, active=True)), Refuse(90, 20, ())),
    ],
)
def test_a_newcomer_gets_room_or_a_reason(needed: int, tenants: tuple[Tenant, ...], outcome: Plan | Refuse) -> None:
    assert decide(needed, tenants, 100) == outcome


_TENANTS = st.lists(
    st.builds(
        tenant,
        st.text("abcdefgh", min_size=1, max_size=4),
        st.integers(0, 60),
        st.sampled_from([0.0, 1.0, 2.0, 3.0]),
        active=st.booleans(),
        pinned=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda one: one.name,
)


@given(_TENANTS, st.integers(1, 120), st.integers(0, 200))
def test_a_plan_stays_within_the_budget_and_touches_nobody_it_may_not(
    tenants: list[Tenant], needed: int, budget: int
) -> None:
    known = {one.name: one for one in tenants}
    match decide(needed, tenants, budget):
        case Plan(evict):
            gone = [known[name] for name in evict]
            assert all(one.movable for one in gone)
            assert len(set(evict)) == len(evict)
            left = sum(one.size for one in tenants if one.name not in evict)
            assert left + needed <= budget
            assert [(one.used, one.name) for one in gone] == sorted((one.used, one.name) for one in gone)
            for one in gone:
                assert left + one.size + needed > budget  # none of them could have stayed
                for other in tenants:
                    # Whoever was used longer ago and stays would not have been enough in its place.
                    if other.movable and other.name not in evict and other.used < one.used:
                        assert left + one.size - other.size + needed > budget
        case Refuse(left=left, active=active):
            stays = sum(one.size for one in tenants if not one.movable)
            assert left == budget - stays < needed
            waits = [known[name] for name in active]
            assert all(one.active and not one.pinned for one in waits)
            busy = sum(one.size for one in tenants if one.active and not one.pinned)
            assert bool(active) == (left + busy >= needed)


@given(_TENANTS, st.integers(1, 120), st.integers(0, 200))
def test_whoever_is_refused_while_others_are_active_fits_once_they_are_not(
    tenants: list[Tenant], needed: int, budget: int
) -> None:
    match decide(needed, tenants, budget):
        case Refuse(active=active) if active:
            idle = [tenant(one.name, one.size, one.used, pinned=one.pinned) for one in tenants]
            assert isinstance(decide(needed, idle, budget), Plan)
        case _:
            pass


@pytest.mark.parametrize(
    ("budget", "leaving"),
    [
        (100, ()),
        (99, ("old",)),
        (69, ("old", "new")),
        (39, ("new", "old")),  # not enough, and all that there is
        (-1, ("new", "old")),
    ],
)
def test_where_memory_has_become_short_the_idle_leave_and_no_more_than_needed(
    budget: int, leaving: tuple[str, ...]
) -> None:
    tenants = [
        tenant("new", 30, 2.0),
        tenant("old", 30, 1.0),
        tenant("active", 20, active=True),
        tenant("pinned", 20, pinned=True),
    ]
    assert surplus(tenants, budget) == leaving


def test_only_an_idle_one_that_nothing_keeps_expires() -> None:
    tenants = [
        tenant("idle", 1, 10.0),
        tenant("recent", 1, 15.0),
        tenant("active", 1, 0.0, active=True),
        tenant("pinned", 1, 0.0, pinned=True),
    ]
    assert expired(tenants, 20.0, 10.0) == ("idle",)
    assert expired(tenants, 19.9, 10.0) == ()
    assert expired(tenants, 20.0, 0.0) == ("idle", "recent")

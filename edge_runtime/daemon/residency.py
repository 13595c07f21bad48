"""Which models stay in memory: who has to leave for a newcomer, and who has been idle for too long. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A model in memory. ``used`` is when it last had a request, in seconds of the caller's clock."""

    name: str
    size: int  # bytes
    used: float
    active: bool = False  # somebody waits for it or is served
    pinned: bool = False

    @property
    def movable(self) -> bool:
        return not (self.active or self.pinned)


@dataclass(frozen=True, slots=True)
class Plan:
    """The newcomer fits once these have left, the least recently used first."""

    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """It does not fit. ``active``: those that would make room for it if they had nothing to do; empty: it never will
    beside what is pinned."""

    needed: int  # bytes
    left: int  # bytes, with everything gone that may go
    active: tuple[str, ...]


def decide(needed: int, tenants: Sequence[Tenant], budget: int) -> Plan | Refuse:
    """Make room for ``needed`` bytes within ``budget`` bytes for all together.

    The least recently used leave first, and none whose leaving is not needed: where a small one and then a large one
    were chosen and the large one alone is enough, the small one stays.
    """
    free = budget - sum(tenant.size for tenant in tenants)
    idle = sorted((tenant for tenant in tenants if tenant.movable), key=lambda tenant: (tenant.used, tenant.name))
    chosen: list[Tenant] = []
    for tenant in idle:
        if free >= needed:
            break
        chosen.append(tenant)
        free += tenant.size
    if free < needed:
        return _refuse(needed, tenants, free)
    for tenant in reversed(chosen[:]):
        if free - tenant.size >= needed:
            chosen.remove(tenant)
            free -= tenant.size
    return Plan(tuple(tenant.name for tenant in chosen))


def _refuse(needed: int, tenants: Sequence[Tenant], left: int) -> Refuse:
    busy = sorted((tenant for tenant in tenants if tenant.active and not tenant.pinned), key=lambda one: one.name)
    if left + sum(tenant.size for tenant in busy) < needed:
        busy = []
    return Refuse(needed, left, tuple(tenant.name for tenant in busy))


def surplus(tenants: Sequence[Tenant], budget: int) -> tuple[str, ...]:
    """Who has to leave where ``budget`` has become less than what they take; all that may go, where that is too few."""
    match decide(0, tenants, budget):
        case Plan(evict):
            return evict
        case Refuse():
            return tuple(tenant.name for tenant in tenants if tenant.movable)


def expired(tenants: Sequence[Tenant], now: float, idle_seconds: float) -> tuple[str, ...]:
    """Those that nobody has used for so long."""
    return tuple(one.name for one in tenants if one.movable and now - one.used >= idle_seconds)

"""The writers in memory, each in an engine of its own: loaded when they are asked for, unloaded when nobody does.

The configured writer is always there. Another one stays until it has been idle for long enough, or until a third wants
its memory; never while a request waits for it or is served by it, and never while it is pinned. Who has to leave is
decided in :mod:`.residency`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_runtime.config import EngineConfig
from edge_runtime.daemon import logs
from edge_runtime.daemon.admission import LONGEST_SECONDS, UNKNOWN_SECONDS
from edge_runtime.daemon.engine import Engine
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.residency import Plan, Refuse, Tenant, decide, expired, surplus
from edge_runtime.daemon.stock import Stock
from edge_runtime.daemon.writer import Writer
from edge_runtime.errors import BusyError, EdgeError, EngineError, RefusedError

DEFAULT = "default"  # the configured writer, for OpenAI's clients
LOAD_SECONDS = 1800.0  # a large file on a slow card
_MIB = 2**20
_MOST_TICK, _LEAST_TICK = 1.0, 0.05  # seconds between looks for those that may leave

Leaving = Literal["idle", "memory", "asked", "failed"]


@dataclass(slots=True, eq=False)
class Guest:
    """A writer that is loaded, or is being loaded. ``life`` keeps its process alive; None: somebody else does."""

    writer: Writer
    size: int  # bytes, estimated from its file
    used: float
    life: asyncio.Task[None] | None = None
    users: int = 0

    @property
    def engine(self) -> Engine:
        return self.writer.engine

    @property
    def bytes(self) -> int:
        """What it takes: as estimated, or as measured where that is more. Prompts in host memory give way."""
        stats = self.engine.stats
        return max(self.size, stats.resident - stats.cache_bytes if stats is not None else 0)

    @contextlib.contextmanager
    def hold(self) -> Iterator[Writer]:
        """It is in use while the block lasts."""
        self.users += 1
        try:
            yield self.writer
        finally:
            self.users -= 1
            self.used = time.monotonic()


class Pool:
    """``make`` gives a writer whose engine is not started yet.

    ``room`` says how many bytes all engines may take together, ``spare`` how many the machine has left now (negative
    where others need them).
    """

    def __init__(
        self,
        default: Writer,
        stock: Stock,
        config: EngineConfig,
        events: Events,
        *,
        make: Callable[[str], Writer],
        room: Callable[[], int],
        spare: Callable[[], int],
    ) -> None:
        self.default = default
        self.stock = stock
        self.pins = {default.name, *config.pinned}
        self._idle = config.idle_seconds
        self._events = events
        self._make = make
        self.room = room
        self._spare = spare
        self._guests = {default.name: Guest(default, 0, time.monotonic())}
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._watches: set[asyncio.Task[None]] = set()
        self._ended = False

    # ---- what is there ---------------------------------------------------------------------------------------------

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine that runs or starts, the configured writer's first."""
        return tuple(guest.engine for guest in self._guests.values())

    @property
    def guests(self) -> Mapping[str, Guest]:
        return self._guests

    def tenants(self) -> list[Tenant]:
        """Who takes memory, by the monotonic clock."""
        now = time.monotonic()
        return [
            Tenant(
                name=name,
                size=guest.bytes,
                used=now if guest.users else guest.used,
                active=bool(guest.users) or guest.engine.child.state == "starting",
                pinned=name in self.pins,
            )
            for name, guest in self._guests.items()
        ]

    def fits(self, size: int) -> bool:
        """Whether a newcomer of ``size`` bytes could be loaded now."""
        return isinstance(decide(size, tenants := self.tenants(), self._limit(tenants)), Plan)

    def _limit(self, tenants: Sequence[Tenant]) -> int:
        """Bytes for all of them: within the budget, and within what other programs leave of the machine."""
        return min(self.room(), sum(tenant.size for tenant in tenants) + self._spare())

    # ---- requests --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Writer]:
        """The writer ``name``, which stays while the block lasts. One that is not there yet begins to load.

        Raises:
            ModelNotFoundError: it is not installed.
            BusyError: it has no room while others are in use.
            RefusedError: it has no room beside what is pinned.
            ModelFileError: its file is damaged.
        """
        name = self.default.name if name == DEFAULT else name
        guest = self._guests.get(name)
        if guest is None:
            async with self._changing:
                guest = self._guests.get(name) or await self._admit(name)
        # Nothing is awaited between finding it and holding it: nobody else can send it away.
        with guest.hold() as writer:
            yield writer

    async def _admit(self, name: str) -> Guest:
        """Make room for a newcomer, and start it."""
        size = await asyncio.to_thread(self.stock.size, name)
        await self._measure_default()
        if self._leaving:
            await asyncio.wait(self._leaving)
        tenants = self.tenants()
        match decide(size, tenants, self._limit(tenants)):
            case Refuse() as refusal:
                raise self._refuse(name, refusal)
            case Plan(evict):
                # All of them are out of reach before anything is waited for: nobody can come back to one meanwhile.
                for other in evict:
                    self._dismiss(other, "memory")
        if self._leaving:
            await asyncio.wait(self._leaving)
        if self._ended:
            raise EngineError("edged is stopping; send the request again when it has started again")
        guest = self._guests[name] = Guest(self._make(name), size, time.monotonic())
        guest.life = asyncio.create_task(guest.engine.child.supervise())
        logs.info("model.loading", model=name, size=size)
        self._events.publish("model.loading", model=name, bytes=size)
        _keep(self._watches, asyncio.create_task(self._watch(name, guest)))
        return guest

    async def _measure_default(self) -> None:
        """The configured writer may be installed after the start, or tuned, so it is looked at when it matters."""
        with contextlib.suppress(EdgeError):
            self._guests[self.default.name].size = await asyncio.to_thread(self.stock.size, self.default.name)

    def _refuse(self, name: str, refusal: Refuse) -> EdgeError:
        tenants = self.tenants()
        text = f"{name} takes {_mib(refusal.needed)} MiB, and {_mib(refusal.left)} MiB are left"
        if refusal.active:
            verb = "is" if len(refusal.active) == 1 else "are"
            seconds = min(_soonest(self._guests[other].engine) for other in refusal.active)
            return _busy(f"{text} while {', '.join(refusal.active)} {verb} in use", seconds)
        if isinstance(decide(refusal.needed, tenants, self.room()), Plan):
            return _busy(f"{text} beside the other programs of this machine", LONGEST_SECONDS)
        return _hopeless(f"{text} beside what stays ({', '.join(one.name for one in tenants if one.pinned)})")

    async def _watch(self, name: str, guest: Guest) -> None:
        """Say when a newcomer is there; one that cannot be loaded is given up."""
        try:
            ready = await guest.engine.child.wait_ready(LOAD_SECONDS)
        except EngineError as error:
            if self._guests.get(name) is guest:
                logs.warn("model.failed", model=name, reason=error.message)
                self._dismiss(name, "failed")
            return
        guest.used = time.monotonic()
        logs.info("model.loaded", model=name, load_ms=round(ready.load_ms, 1))
        self._events.publish("model.loaded", model=name, load_ms=round(ready.load_ms, 1))

    # ---- the owner's wishes ----------------------------------------------------------------------------------------

    async def load(self, name: str) -> None:
        """Have ``name`` in memory, and wait for it. Raises as :meth:`use`, and EngineError where it does not load."""
        async with self.use(name) as writer:
            await writer.engine.child.wait_ready(LOAD_SECONDS)

    async def unload(self, name: str) -> None:
        """Give its memory back; one that is installed and not loaded has none.

        Raises:
            ModelNotFoundError: it is not installed.
            RefusedError: it is the configured writer, pinned, or in use.
        """
        self._check_leaves(name)
        async with self._changing:
            if name not in self._guests:
                await asyncio.to_thread(self.stock.size, name)
                return
            tenant = next(one for one in self.tenants() if one.name == name)
            if tenant.pinned:
                raise RefusedError(f"{name} is pinned; first: edge model unpin {name}")
            if tenant.active:
                raise RefusedError(f"{name} is in use; try again when its requests are done: edge requests shows them")
            self._dismiss(name, "asked")
            await asyncio.wait(self._leaving)

    async def pin(self, name: str) -> None:
        """Keep ``name`` once it is loaded, until the box stops. Raises as :meth:`use` for one that is not here."""
        await asyncio.to_thread(self.stock.size, name)
        self.pins.add(name)

    async def unpin(self, name: str) -> None:
        """Let ``name`` go when it is idle.

        Raises:
            RefusedError: it is the configured writer.
            ModelNotFoundError: it is not installed.
        """
        self._check_leaves(name)
        if name not in self.pins:
            await asyncio.to_thread(self.stock.size, name)
        self.pins.discard(name)

    def _check_leaves(self, name: str) -> None:
        if name == self.default.name:
            raise RefusedError(f"{name} is models.writer, which is always there; name another one there first")

    async def purge(self) -> None:
        """Have every engine forget its cached prompts; those that are leaving have left when this returns."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        # One that only just loads has none in memory.
        await asyncio.gather(*(engine.purge() for engine in self.engines if engine.ready is not None))

    # ---- its own life ----------------------------------------------------------------------------------------------

    async def supervise(self) -> None:
        """Load what the configuration pins and unload what is idle, until cancelled; then end every engine but the
        configured writer's."""
        pinned = asyncio.create_task(self._load_pinned())
        try:
            while True:
                await asyncio.sleep(min(max(self._idle / 4, _LEAST_TICK), _MOST_TICK))
                self._relieve()
        finally:
            self._ended = True
            for task in (pinned, *self._watches):
                task.cancel()
            for name in [name for name, guest in self._guests.items() if guest.life is not None]:
                self._dismiss(name, "asked")
            if self._leaving:
                await asyncio.wait(self._leaving)

    def _relieve(self) -> None:
        """Send those away that are idle; and earlier than that where memory has become short."""
        for name in expired(self.tenants(), time.monotonic(), self._idle):
            self._dismiss(name, "idle")
        tenants = self.tenants()
        for name in surplus(tenants, self._limit(tenants)):
            self._dismiss(name, "memory")

    async def _load_pinned(self) -> None:
        await self.default.engine.child.come()
        for name in sorted(self.pins - {self.default.name}):
            try:
                await self.load(name)
            except EdgeError as error:
                logs.warn("model.pinned", model=name, reason=error.message)

    def _dismiss(self, name: str, reason: Leaving) -> None:
        """From now on ``name`` is not there; its process ends in a task of its own, whoever leaves meanwhile."""
        guest = self._guests.pop(name)
        _keep(self._leaving, asyncio.create_task(self._end(name, guest, reason)))

    async def _end(self, name: str, guest: Guest, reason: Leaving) -> None:
        if guest.life is not None:
            guest.life.cancel()
            await asyncio.wait([guest.life])
            if not guest.life.cancelled() and (error := guest.life.exception()) is not None:
                logs.LOG.error("model.broken", exc_info=error)
        logs.info("model.unloaded", model=name, reason=reason)
        self._events.publish("model.unloaded", model=name, reason=reason)


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _soonest(engine: Engine) -> int:
    """Seconds until all that an engine has been given may be done, as far as anybody can tell."""
    stats, places = engine.stats, engine.admission.places
    if stats is None or not stats.step_ms or not places:
        return UNKNOWN_SECONDS
    return min(max(math.ceil(max(place.left() for place in places) * stats.step_ms / 1000), 1), LONGEST_SECONDS)


def _busy(text: str, seconds: int) -> BusyError:
    return BusyError(f"{text}; try again in {seconds} s", reason="memory", retry_after=seconds)


def _hopeless(text: str) -> RefusedError:
    remedy = "choose a smaller model, lower engine.context, unpin one, or raise memory.budget_bytes"
    return RefusedError(f"{text}; {remedy}", reason="memory")


def _mib(size: int) -> str:
    return f"{max(size, 0) // _MIB:,}"

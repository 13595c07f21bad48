"""Routes for models: what OpenAI's clients may name, what is in memory, and the owner's loading and pinning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from edge_runtime import openai_protocol
from edge_runtime.daemon.adapters import SEPARATOR
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.pool import DEFAULT, Pool
from edge_runtime.daemon.stock import Stock
from edge_runtime.errors import EdgeError, ModelNotFoundError
from edge_runtime.model_protocol import ModelState, ModelStates


async def _cards(call: Call) -> list[openai_protocol.ModelCard]:
    """Whatever a request may name: writers, loaded or not, their adapters, and the embedder."""
    daemon, created = call.daemon, int(call.daemon.started)
    names = await asyncio.to_thread(daemon.pool.stock.names)
    first = daemon.writer.name
    names.sort(key=lambda name: name != first)
    adapted = [model for name in names for model in daemon.adapters.models(name)]
    embedders = [daemon.embedder.ready.name] if daemon.embedder.ready is not None else []
    return [openai_protocol.ModelCard(id=name, created=created) for name in (*names, *embedders, *adapted)]


async def list_cards(call: Call, _: None) -> Reply:
    return openai_protocol.ModelList(data=await _cards(call))


async def show_card(call: Call, _: None) -> Reply:
    wanted = call.part("id")
    # An alias is not listed, so that whoever picks from the list sees each once. Asked for, it has a card under its own
    # name, as OpenAI's aliases have.
    model, separator, adapter = wanted.partition(SEPARATOR)
    name = (call.daemon.writer.name if model == DEFAULT else model) + separator + adapter
    for card in await _cards(call):
        if card.id == name:
            return msgspec.structs.replace(card, id=wanted)
    raise ModelNotFoundError(f"the model {wanted} is not here; list what is with: GET /v1/models", param="model")


def _size(stock: Stock, name: str) -> int:
    """Bytes that a writer takes; 0 for one that is damaged, or no longer there. Reads the disk."""
    try:
        return stock.size(name)
    except EdgeError:
        return 0


def _state(call: Call, name: str, size: int) -> ModelState:
    daemon = call.daemon
    guest = daemon.pool.guests.get(name)
    return ModelState(
        name=name,
        state=guest.engine.child.state if guest is not None else "unloaded",
        default=name == daemon.writer.name,
        pinned=name in daemon.pool.pins,
        # Questions are put to the configured writer without asking for it by name.
        active=max(guest.users, len(guest.engine.admission.places)) if guest is not None else 0,
        idle_s=round(time.monotonic() - guest.used, 3) if guest is not None and not guest.users else None,
        memory_bytes=guest.bytes if guest is not None and guest.bytes > size else size,
        fits=guest is not None or daemon.pool.fits(size),
        adapters=[one.name for one in daemon.adapters.known() if one.base == name],
    )


async def list_states(call: Call, _: None) -> Reply:
    pool = call.daemon.pool
    sizes = await asyncio.to_thread(lambda: {name: _size(pool.stock, name) for name in pool.stock.names()})
    # One that was removed from the store stays in memory for a while.
    names = [*pool.guests, *(name for name in sizes if name not in pool.guests)]
    return ModelStates(models=[_state(call, name, sizes.get(name, 0)) for name in names], budget=pool.room())


def _changing(verb: str, summary: str, change: Callable[[Pool, str], Awaitable[None]]) -> Route:
    """The route by which the owner has the pool ``change`` one writer; its reply is what has become of it."""

    async def handle(call: Call, _: None) -> Reply:
        pool, name = call.daemon.pool, call.part("name")
        name = pool.default.name if name == DEFAULT else name
        await change(pool, name)
        return _state(call, name, await asyncio.to_thread(_size, pool.stock, name))

    return Route(
        method="POST",
        path=f"/edge/v1/models/{{name}}/{verb}",
        kind=f"models.{verb}",
        action="administer",
        summary=summary,
        handle=handle,
        reply=ModelState,
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/models",
        kind="models",
        action="look",
        summary="What a request may name: every installed writer, its adapters, and the embedder.",
        handle=list_cards,
        reply=openai_protocol.ModelList,
    ),
    Route(
        method="GET",
        path="/v1/models/{id}",
        kind="models",
        action="look",
        summary="One of them; `default` is the configured writer.",
        handle=show_card,
        reply=openai_protocol.ModelCard,
    ),
    Route(
        method="GET",
        path="/edge/v1/models",
        kind="models",
        action="look",
        summary="The installed writers: which are in memory, what they take, who uses them, and which would fit.",
        handle=list_states,
        reply=ModelStates,
    ),
    _changing("load", "Have a writer in memory; answered once it is there.", Pool.load),
    _changing("unload", "Give a writer's memory back; refused while it is in use or pinned.", Pool.unload),
    _changing(
        "pin", "Keep a writer once it is loaded, until the box stops; `engine.pinned` keeps it for good.", Pool.pin
    ),
    _changing("unpin", "Let a writer go again when it is idle.", Pool.unpin),
)

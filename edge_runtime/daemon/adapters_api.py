"""Routes for adapters: what there is, and the owner's adding and removing."""

from __future__ import annotations

import asyncio

import msgspec

from edge_runtime import adapter_protocol
from edge_runtime.daemon.call import Call, Reply, Route


async def list_adapters(call: Call, _: None) -> Reply:
    here = await asyncio.to_thread(call.daemon.pool.stock.names)
    return adapter_protocol.AdapterList(
        adapters=[
            adapter_protocol.ListedAdapter(**msgspec.structs.asdict(one), base_installed=one.base in here)
            for one in call.daemon.adapters.known()
        ]
    )


async def add_adapter(call: Call, body: adapter_protocol.AdapterAdd) -> Reply:
    added = await call.daemon.library.finish(call.daemon.adapters.add(body.name, body.content, body.base))
    if not added.unchanged:
        call.daemon.events.publish("adapter.added", adapter=body.name, base=added.adapter.base)
    return added


async def remove_adapter(call: Call, _: None) -> Reply:
    removed = await call.daemon.library.finish(call.daemon.adapters.remove(call.part("name")))
    call.daemon.events.publish("adapter.removed", adapter=removed.name)
    return adapter_protocol.AdapterRemoved(removed=removed.name, freed=removed.size)


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/edge/v1/adapters",
        kind="adapters",
        action="look",
        summary="The adapters that a request may choose.",
        handle=list_adapters,
        reply=adapter_protocol.AdapterList,
    ),
    Route(
        method="POST",
        path="/edge/v1/adapters",
        kind="adapters.add",
        action="administer",
        summary="Add a LoRA adapter (GGUF) for an installed writer.",
        handle=add_adapter,
        body=adapter_protocol.AdapterAdd,
        example=adapter_protocol.AdapterAdd(name="pumps", content=b"GGUF\3\0\0\0"),
        reply=adapter_protocol.AdapterAdded,
        large=True,
    ),
    Route(
        method="DELETE",
        path="/edge/v1/adapters/{name}",
        kind="adapters.remove",
        action="administer",
        summary="Remove an adapter; texts that are being written with it go on to their end.",
        handle=remove_adapter,
        reply=adapter_protocol.AdapterRemoved,
    ),
)

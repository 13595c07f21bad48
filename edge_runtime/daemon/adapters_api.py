"""Routes for adapters: what there is, and the owner's adding and removing."""

from __future__ import annotations

import asyncio
import base64
import binascii

from edge_runtime import adapter_protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.errors import RequestError


async def list_adapters(call: Call, _: None) -> Reply:
    return adapter_protocol.AdapterList(adapters=call.daemon.adapters.known())


async def add_adapter(call: Call, body: adapter_protocol.AdapterAdd) -> Reply:
    try:
        content = await asyncio.to_thread(base64.b64decode, body.content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"content is not base64: {error}", param="content") from None
    added = await call.daemon.library.finish(call.daemon.adapters.add(body.name, content, body.base))
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
        example=adapter_protocol.AdapterAdd(name="pumps", content="R0dVRgMAAAA="),
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

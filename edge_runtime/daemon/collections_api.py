"""Collections: how sensitive each is, and who may read it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.library import reader_of
from edge_runtime.errors import NotFoundError

if TYPE_CHECKING:
    from edge_runtime.knowledge.collections import Collection


# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


async def sensitivity(call: Call, name: str) -> protocol.Sensitivity:
    """How sensitive a collection is that the peer may read; the default one is there before its first document.

    Raises:
        NotFoundError: no such collection, or not for this peer: it cannot tell which.
    """
    reader = reader_of(call.peer, administers=call.administers)
    every = await asyncio.to_thread((await call.daemon.library.opened()).index.collections)
    known = {one.name: one.sensitivity for one in every if reader is None or one.readable(reader)}
    if protocol.DEFAULT_COLLECTION not in {one.name for one in every}:
        known[protocol.DEFAULT_COLLECTION] = "internal"
    if name not in known:
        named = ", ".join(sorted(known)) or "none"
        raise NotFoundError(f"there is no collection {name} that you may read; those are: {named}", param="collection")
    return known[name]


async def change_collection(call: Call, body: knowledge_protocol.CollectionChange) -> Reply:
    index = (await call.daemon.library.opened()).index
    changed = await asyncio.to_thread(
        lambda: index.set_collection(body.name, sensitivity=body.sensitivity, uids=body.uids, gids=body.gids)
    )
    return _collection(changed)


async def list_collections(call: Call, _: None) -> Reply:
    found = await asyncio.to_thread((await call.daemon.library.opened()).index.collections)
    return knowledge_protocol.CollectionList(collections=[_collection(one) for one in found])


def _collection(one: Collection) -> knowledge_protocol.Collection:
    return knowledge_protocol.Collection(
        name=one.name, sensitivity=one.sensitivity, uids=sorted(one.uids), gids=sorted(one.gids)
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/edge/v1/collections",
        kind="collections.change",
        action="administer",
        summary="Make a collection, or change how sensitive it is and who may read it.",
        handle=change_collection,
        body=knowledge_protocol.CollectionChange,
        example=knowledge_protocol.CollectionChange(name="personnel", sensitivity="confidential", gids=[1001]),
        reply=knowledge_protocol.Collection,
    ),
    Route(
        method="GET",
        path="/edge/v1/collections",
        kind="collections",
        action="administer",
        summary="The collections, how sensitive each is and who may read it.",
        handle=list_collections,
        reply=knowledge_protocol.CollectionList,
    ),
)

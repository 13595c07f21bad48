"""Collections: how sensitive each is, who may read it, and which index holds it: the box's own, or a mounted one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.library import Shelf, reader_of
from edge_runtime.daemon.state import Daemon
from edge_runtime.errors import NotFoundError, RefusedError

if TYPE_CHECKING:
    from edge_runtime.daemon.vectors import DocumentEmbedder
    from edge_runtime.knowledge.collections import Collection
    from edge_runtime.knowledge.index import Index
    from edge_runtime.knowledge.mounts import MountedCollection

NO_VECTORS = (
    "the vectors of this index are of an embedder that is not on this box, so only its words can be searched: "
    'edge search --mode lexical; or run "edge index reembed", or mount an export that was made with this embedder'
)

# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a collection is that was asked for as ``name``."""

    name: str
    index: Index
    collection: str  # its name inside the index
    sensitivity: protocol.Sensitivity
    mounted: bool
    embedder: DocumentEmbedder | None  # for queries to this index; None: only its words can be searched


async def place(call: Call, name: str) -> Place:
    """Where a collection is that the peer may read; the default one is there before its first document.

    Raises:
        NotFoundError: no such collection, or not for this peer: it cannot tell which.
        StorageError: it came with a mounted index that is in trouble.
    """
    library, reader = call.daemon.library, reader_of(call.peer, administers=call.administers)
    shelf = await library.opened()
    own = [one for one in await asyncio.to_thread(_own, shelf) if reader is None or one.readable(reader)]
    for one in own:
        if one.name == name:
            return _own_place(call.daemon, shelf, one)
    every = await asyncio.to_thread(library.mounts.every)
    mounted = [one for one in every if reader is None or one.access.readable(reader)]
    for other in mounted:
        if other.access.name == name:
            return _mounted_place(call.daemon, other)
    named = ", ".join(sorted([*(one.name for one in own), *(one.access.name for one in mounted)])) or "none"
    raise NotFoundError(f"there is no collection {name} that you may read; those are: {named}", param="collection")


async def places(call: Call) -> list[Place]:
    """Every collection that the peer may read, the box's own first; those of mounts in trouble are left out."""
    library, reader = call.daemon.library, reader_of(call.peer, administers=call.administers)
    shelf = await library.opened()
    found = [
        _own_place(call.daemon, shelf, one)
        for one in await asyncio.to_thread(_own, shelf)
        if reader is None or one.readable(reader)
    ]
    found += [
        _mounted_place(call.daemon, one)
        for one in await asyncio.to_thread(library.mounts.every)
        if one.mounted.index is not None and (reader is None or one.access.readable(reader))
    ]
    return found


async def holder(call: Call, document_id: str) -> tuple[Place, knowledge_protocol.Document]:
    """A document that the peer may read, its collection as it is asked for, and where it is.

    Raises:
        NotFoundError: there is none, or not for this peer.
    """
    library, reader = call.daemon.library, reader_of(call.peer, administers=call.administers)
    shelf = await library.opened()
    try:
        document = await asyncio.to_thread(shelf.index.document, document_id)
    except NotFoundError:
        for one, found in await asyncio.to_thread(lambda: list(library.mounts.document(document_id))):
            if reader is None or one.access.readable(reader):
                return _mounted_place(call.daemon, one), found
        raise
    access = await asyncio.to_thread(shelf.index.collection, document.collection)
    if access is None or (reader is not None and not access.readable(reader)):
        raise NotFoundError(f"no document has the id {document_id}: edge docs lists them")
    return _own_place(call.daemon, shelf, access), document


def refuse_mounted(daemon: Daemon, name: str) -> None:
    """Raises RefusedError: the collection came with a mounted index, and cannot be changed here."""
    if daemon.library.mounts.find(name) is not None:
        raise RefusedError(
            f"the collection {name} came with a mounted index and cannot be changed here: choose another collection",
            param="collection",
        )


def refuse_stale(daemon: Daemon, index: Index) -> None:
    """Raises RefusedError: the index holds vectors of another embedder than the box has now."""
    if index.stale:
        raise RefusedError(daemon.library.note)


def _own(shelf: Shelf) -> list[Collection]:
    from edge_runtime.knowledge.collections import Collection  # noqa: PLC0415

    found = shelf.index.collections()
    if protocol.DEFAULT_COLLECTION not in {one.name for one in found}:
        found.append(Collection(protocol.DEFAULT_COLLECTION, "internal", frozenset(), frozenset()))
    return found


def _own_place(daemon: Daemon, shelf: Shelf, one: Collection) -> Place:
    return Place(
        name=one.name,
        index=shelf.index,
        collection=one.name,
        sensitivity=one.sensitivity,
        mounted=False,
        embedder=daemon.library.embedder_of(shelf.index),
    )


def _mounted_place(daemon: Daemon, one: MountedCollection) -> Place:
    return Place(
        name=one.access.name,
        index=one.index,
        collection=one.inside,
        sensitivity=one.access.sensitivity,
        mounted=True,
        embedder=daemon.library.embedder_of(one.index),
    )


async def change_collection(call: Call, body: knowledge_protocol.CollectionChange) -> Reply:
    library = call.daemon.library
    index = (await library.opened()).index
    if await asyncio.to_thread(library.mounts.find, body.name) is not None:
        changed = await asyncio.to_thread(
            lambda: library.mounts.change(body.name, sensitivity=body.sensitivity, uids=body.uids, gids=body.gids)
        )
        return _collection(changed, mounted=True)
    changed = await asyncio.to_thread(
        lambda: index.set_collection(body.name, sensitivity=body.sensitivity, uids=body.uids, gids=body.gids)
    )
    return _collection(changed)


async def list_collections(call: Call, _: None) -> Reply:
    library = call.daemon.library
    own = await asyncio.to_thread((await library.opened()).index.collections)
    mounted = await asyncio.to_thread(library.mounts.every)
    return knowledge_protocol.CollectionList(
        collections=[
            *(_collection(one) for one in own),
            *(_collection(one.access, mounted=True) for one in mounted),
        ]
    )


def _collection(one: Collection, *, mounted: bool = False) -> knowledge_protocol.Collection:
    return knowledge_protocol.Collection(
        name=one.name, sensitivity=one.sensitivity, uids=sorted(one.uids), gids=sorted(one.gids), mounted=mounted
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

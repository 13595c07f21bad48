"""Documents: add, list, read, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import knowledge_protocol
from edge_runtime.daemon import collections_api
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.library import Shelf, reader_of
from edge_runtime.daemon.state import Daemon
from edge_runtime.errors import RequestError

if TYPE_CHECKING:
    from edge_runtime.knowledge.records import PreparedDocument

MOST_TEXT = 100_000  # characters of one passage


# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


async def add_document(call: Call, body: knowledge_protocol.DocumentAdd) -> Reply:
    shelf = await call.daemon.library.opened()
    from edge_runtime.knowledge.ingest import Arrival  # noqa: PLC0415

    collections_api.refuse_mounted(call.daemon, body.collection)
    collections_api.refuse_stale(call.daemon, shelf.index)
    arrival = Arrival(
        name=body.name, content=body.content, collection=body.collection, tags=tuple(body.tags), date=body.date
    )

    async def store(document: PreparedDocument) -> knowledge_protocol.Document:
        # Until here whoever leaves stops the work; from here on it is done whole.
        return await call.daemon.library.finish(_replace(call.daemon, shelf, document))

    async with shelf.intake.place(body.content):
        call.running.start()
        return await shelf.intake.add(arrival, store)


async def _replace(daemon: Daemon, shelf: Shelf, document: PreparedDocument) -> knowledge_protocol.Document:
    async with shelf.storing:
        older = await asyncio.to_thread(shelf.index.named, document.collection, document.name)
        stored = await asyncio.to_thread(shelf.index.add, document)
    if older is not None and older.id != stored.id:
        await _purge(daemon, [older.id])
    daemon.events.publish("document.added", document=stored.id, name=stored.name, collection=stored.collection)
    return stored


async def check_documents(call: Call, body: knowledge_protocol.DocumentCheck) -> Reply:
    index = (await call.daemon.library.opened()).index
    from edge_runtime.knowledge.ingest import Arrival  # noqa: PLC0415

    def stay() -> list[knowledge_protocol.Document]:
        found: list[knowledge_protocol.Document] = []
        for one in body.documents:
            arrival = Arrival(
                name=one.name, content=b"", collection=body.collection, tags=tuple(body.tags), date=body.date
            )
            older = index.named(body.collection, one.name)
            if older is not None and arrival.leaves(older, one.sha256):
                found.append(older)
        return found

    return knowledge_protocol.DocumentList(documents=await asyncio.to_thread(stay))


async def list_documents(call: Call, _: None) -> Reply:
    shelf = await call.daemon.library.opened()
    from edge_runtime.knowledge.mounts import present  # noqa: PLC0415

    reader = reader_of(call.peer, administers=call.administers)

    def listed() -> list[knowledge_protocol.Document]:
        open_to = {item.name for item in shelf.index.collections() if reader is None or item.readable(reader)}
        return [
            *(item for item in shelf.index.documents() if item.collection in open_to),
            *(
                present(one, item)
                for one in shelf.mounts.every()
                if one.mounted.index is not None and (reader is None or one.access.readable(reader))
                for item in one.index.documents(one.inside)
            ),
        ]

    return knowledge_protocol.DocumentList(documents=await asyncio.to_thread(listed))


async def show_document(call: Call, _: None) -> Reply:
    _place, document = await collections_api.holder(call, call.part("id"))
    return document


async def read_text(call: Call, _: None) -> Reply:
    start, end = call.number("start"), call.number("end")
    if not start <= end <= start + MOST_TEXT:
        raise RequestError(f"end must lie between start and start + {MOST_TEXT}", param="end")
    place, document = await collections_api.holder(call, call.part("id"))
    text = await asyncio.to_thread(place.index.text, document.id, start, end)
    return knowledge_protocol.Passage(
        document=document.name, document_id=document.id, start=start, end=start + len(text), text=text
    )


async def remove_document(call: Call, _: None) -> Reply:
    key, daemon = call.part("id"), call.daemon
    place, _document = await collections_api.holder(call, key)
    if place.mounted:
        collections_api.refuse_mounted(daemon, place.name)

    async def remove() -> dict[str, int]:
        purged = await asyncio.to_thread((await daemon.library.opened()).index.remove, key)
        (await daemon.library.opened()).intake.recent.forget()
        purged |= await _purge(daemon, [key])
        daemon.events.publish("document.removed", document=key)
        return purged

    return knowledge_protocol.Removed(removed=[key], purged=await daemon.library.finish(remove()))


async def _purge(daemon: Daemon, documents: Sequence[str]) -> dict[str, int]:
    """Forget what was derived from documents outside the index: answers that quote them, and every cached prompt."""
    answers = daemon.answers.forget(documents)
    await daemon.pool.purge()
    snapshots = await asyncio.to_thread(_empty, daemon.paths.snapshots)
    return {"answers": answers, "snapshots": snapshots}


def _empty(directory: Path) -> int:
    files = [path for path in directory.rglob("*") if path.is_file()]
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/edge/v1/documents",
        kind="documents.add",
        action="administer",
        summary="Add a document, in place of an older one of the same name.",
        handle=add_document,
        body=knowledge_protocol.DocumentAdd,
        example=knowledge_protocol.DocumentAdd(name="note.md", content=b"# Note\n\nThe pump is green.\n"),
        reply=knowledge_protocol.DocumentAdded,
        large=True,
    ),
    Route(
        method="POST",
        path="/edge/v1/documents/check",
        kind="documents.check",
        action="administer",
        summary="Which documents are there already, so that adding them would change nothing.",
        handle=check_documents,
        body=knowledge_protocol.DocumentCheck,
        example=knowledge_protocol.DocumentCheck(
            documents=[knowledge_protocol.DocumentSum(name="note.md", sha256="0" * 64)]
        ),
        reply=knowledge_protocol.DocumentList,
    ),
    Route(
        method="GET",
        path="/edge/v1/documents",
        kind="documents",
        action="ask",
        summary="The documents that the peer may read.",
        handle=list_documents,
        reply=knowledge_protocol.DocumentList,
    ),
    Route(
        method="GET",
        path="/edge/v1/documents/{id}",
        kind="documents",
        action="ask",
        summary="One document.",
        handle=show_document,
        reply=knowledge_protocol.Document,
    ),
    Route(
        method="GET",
        path="/edge/v1/documents/{id}/text",
        kind="documents.text",
        action="ask",
        summary="Characters `start` to `end` of a document's text: a cited passage.",
        handle=read_text,
        reply=knowledge_protocol.Passage,
        query=("start", "end"),
    ),
    Route(
        method="DELETE",
        path="/edge/v1/documents/{id}",
        kind="documents.remove",
        action="administer",
        summary="Remove a document and whatever was derived from it.",
        handle=remove_document,
        reply=knowledge_protocol.Removed,
    ),
)

"""Documents: add, list, read, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import knowledge_protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.library import Shelf, reader_of
from edge_runtime.daemon.state import Daemon
from edge_runtime.errors import NotFoundError, RequestError

if TYPE_CHECKING:
    from edge_runtime.knowledge.records import PreparedDocument

MOST_TEXT = 100_000  # characters of one passage


# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


async def add_document(call: Call, body: knowledge_protocol.DocumentAdd) -> Reply:
    shelf, settings = (await call.daemon.library.opened()), call.daemon.config.knowledge
    from edge_runtime.knowledge.documents import Limits  # noqa: PLC0415
    from edge_runtime.knowledge.ingest import ingest  # noqa: PLC0415

    limits = Limits(
        memory_bytes=settings.parse_memory_bytes,
        seconds=settings.parse_seconds,
        document_bytes=settings.document_bytes,
        text_chars=settings.text_chars,
        chunk_tokens=settings.chunk_tokens,
        chunk_overlap=settings.chunk_overlap,
        unsealed_ok=not call.daemon.seal.sealed,
    )

    async def replace(document: PreparedDocument) -> knowledge_protocol.Document:
        older = await asyncio.to_thread(_named, shelf, body.collection, body.name)
        stored = await asyncio.to_thread(shelf.index.add, document)
        replaced = [key for key in older if key != stored.id]
        if replaced:
            await _purge(call.daemon, replaced)
        call.daemon.events.publish("document.added", document=stored.id, name=body.name, collection=body.collection)
        return stored

    async def store(document: PreparedDocument) -> knowledge_protocol.Document:
        # Until here whoever leaves stops the work; from here on it is done whole.
        return await call.daemon.library.finish(replace(document))

    async with shelf.adding:
        call.running.start()
        return await ingest(shelf.index, shelf.embedder, body.name, body.content, body.collection, limits, store=store)


def _named(shelf: Shelf, collection: str, name: str) -> list[str]:
    return [item.id for item in shelf.index.documents(collection) if item.name == name]


async def list_documents(call: Call, _: None) -> Reply:
    index = (await call.daemon.library.opened()).index
    documents = await asyncio.to_thread(index.documents)
    reader = reader_of(call.peer, administers=call.administers)
    if reader is not None:
        open_to = {item.name for item in await asyncio.to_thread(index.collections) if item.readable(reader)}
        documents = [item for item in documents if item.collection in open_to]
    return knowledge_protocol.DocumentList(documents=documents)


async def _readable(call: Call) -> knowledge_protocol.Document:
    """The document named by the path; one that the peer may not read is not there for it."""
    index, key = (await call.daemon.library.opened()).index, call.part("id")
    document = await asyncio.to_thread(index.document, key)
    reader = reader_of(call.peer, administers=call.administers)
    collection = await asyncio.to_thread(index.collection, document.collection)
    if reader is not None and collection is not None and not collection.readable(reader):
        raise NotFoundError(f"no document has the id {key}: edge docs lists them")
    return document


async def show_document(call: Call, _: None) -> Reply:
    return await _readable(call)


async def read_text(call: Call, _: None) -> Reply:
    start, end = call.number("start"), call.number("end")
    if not start <= end <= start + MOST_TEXT:
        raise RequestError(f"end must lie between start and start + {MOST_TEXT}", param="end")
    document = await _readable(call)
    text = await asyncio.to_thread((await call.daemon.library.opened()).index.text, document.id, start, end)
    return knowledge_protocol.Passage(
        document=document.name, document_id=document.id, start=start, end=start + len(text), text=text
    )


async def remove_document(call: Call, _: None) -> Reply:
    key, daemon = call.part("id"), call.daemon

    async def remove() -> dict[str, int]:
        purged = await asyncio.to_thread((await daemon.library.opened()).index.remove, key)
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

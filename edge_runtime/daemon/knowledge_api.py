"""Our own routes about documents: ask, search, add, list, read, remove, and feedback on answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import protocol
from edge_runtime.daemon.call import Call, Reply, Route, within
from edge_runtime.daemon.library import Shelf, reader_of
from edge_runtime.daemon.state import Daemon
from edge_runtime.daemon.writer import Pen
from edge_runtime.errors import EngineError, NotFoundError, RequestError

if TYPE_CHECKING:
    from edge_runtime.knowledge.collections import Collection
    from edge_runtime.knowledge.records import PreparedDocument

MOST_TEXT = 100_000  # characters of one passage


# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.

# ---- questions -----------------------------------------------------------------------------------------------------


async def _sensitivity(call: Call, name: str) -> protocol.Sensitivity:
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


async def ask(call: Call, body: protocol.AskRequest) -> Reply:
    if body.edge is not None:
        call.running.priority = body.edge.priority
    async with within(body.edge.deadline_ms if body.edge is not None else None):
        return await _ask(call, body)


async def _ask(call: Call, body: protocol.AskRequest) -> Reply:
    shelf, answers = (await call.daemon.library.opened()), call.daemon.answers
    from edge_runtime.knowledge.asking import Question  # noqa: PLC0415

    collection = body.collection or protocol.DEFAULT_COLLECTION
    question = Question(
        id=call.id,
        text=body.question,
        collection=collection,
        mode=body.mode,
        sensitivity=await _sensitivity(call, collection),
        reader=reader_of(call.peer, administers=call.administers),
        writer=Pen(call.daemon.writer, str(call.peer), call.running.priority, call.administers, call.pace()),
    )
    answers.begin(call.id, call.peer)
    call.running.start()
    answer: protocol.Answer | None = None
    try:
        async with contextlib.aclosing(shelf.asker.ask(question)) as steps:
            async for step in steps:
                match step:
                    case protocol.Answer():
                        answer = step
                        answers.put(step, call.peer)
                    case protocol.Sources() if body.stream:
                        await call.stream.send(step, "sources")
                    case protocol.Sentence() if body.stream:
                        await call.stream.send(step, "sentence")
    except asyncio.CancelledError:
        answers.end(call.id, "cancelled")
        raise
    finally:
        answers.end(call.id, "failed")
    if answer is None:
        raise EngineError("the question ended without an answer; ask again")
    if not body.stream:
        return answer
    await call.stream.send(answer, "done")
    return await call.stream.end()


async def poll_answer(call: Call, _: None) -> Reply:
    return call.daemon.answers.get(call.part("id"), call.only_own)


async def cancel_answer(call: Call, _: None) -> Reply:
    call.daemon.requests.cancel(call.part("id"), call.only_own)
    return protocol.Acknowledged()


async def feedback(call: Call, body: protocol.FeedbackRequest) -> Reply:
    answer = call.daemon.answers.get(body.answer_id, call.only_own)
    if body.hit is not None and not 0 <= body.hit < len(answer.citations):
        raise RequestError(f"the answer has {len(answer.citations)} citations; hit counts from 0", param="hit")
    await asyncio.to_thread((await call.daemon.library.opened()).journal.note, body, str(call.peer))
    return protocol.Acknowledged()


async def search(call: Call, body: protocol.SearchRequest) -> Reply:
    shelf = await call.daemon.library.opened()
    from edge_runtime.knowledge.search import search as look  # noqa: PLC0415

    collection = body.collection or protocol.DEFAULT_COLLECTION
    await _sensitivity(call, collection)
    call.running.start()
    vector = None
    if body.mode != "lexical":
        vector = (await shelf.embedder.embed([body.query], kind="query")).rows[0][0]
    found = await asyncio.to_thread(
        look,
        shelf.index,
        body.query,
        vector,
        collection=collection,
        mode=body.mode,
        k=body.k,
        readers=reader_of(call.peer, administers=call.administers),
    )
    return protocol.SearchReply(
        hits=[
            protocol.Hit(
                document=hit.document,
                document_id=hit.document_id,
                locator=protocol.Locator(
                    start=hit.start, end=hit.end, page=hit.page, heading=hit.heading[-1] if hit.heading else None
                ),
                score=round(float(hit.score), 6),
                text=hit.text,
            )
            for hit in found
        ]
    )


# ---- collections ---------------------------------------------------------------------------------------------------


async def change_collection(call: Call, body: protocol.CollectionChange) -> Reply:
    index = (await call.daemon.library.opened()).index
    changed = await asyncio.to_thread(
        lambda: index.set_collection(body.name, sensitivity=body.sensitivity, uids=body.uids, gids=body.gids)
    )
    return _collection(changed)


async def list_collections(call: Call, _: None) -> Reply:
    found = await asyncio.to_thread((await call.daemon.library.opened()).index.collections)
    return protocol.CollectionList(collections=[_collection(one) for one in found])


def _collection(one: Collection) -> protocol.Collection:
    return protocol.Collection(name=one.name, sensitivity=one.sensitivity, uids=sorted(one.uids), gids=sorted(one.gids))


# ---- documents -----------------------------------------------------------------------------------------------------


async def add_document(call: Call, body: protocol.DocumentAdd) -> Reply:
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

    async def replace(document: PreparedDocument) -> protocol.Document:
        older = await asyncio.to_thread(_named, shelf, body.collection, body.name)
        stored = await asyncio.to_thread(shelf.index.add, document)
        replaced = [key for key in older if key != stored.id]
        if replaced:
            await _purge(call.daemon, replaced)
        call.daemon.events.publish("document.added", document=stored.id, name=body.name, collection=body.collection)
        return stored

    async def store(document: PreparedDocument) -> protocol.Document:
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
    return protocol.DocumentList(documents=documents)


async def _readable(call: Call) -> protocol.Document:
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
    return protocol.Passage(
        document=document.name, document_id=document.id, start=start, end=start + len(text), text=text
    )


async def remove_document(call: Call, _: None) -> Reply:
    key, daemon = call.part("id"), call.daemon

    async def remove() -> dict[str, int]:
        purged = await asyncio.to_thread((await daemon.library.opened()).index.remove, key)
        purged |= await _purge(daemon, [key])
        daemon.events.publish("document.removed", document=key)
        return purged

    return protocol.Removed(removed=[key], purged=await daemon.library.finish(remove()))


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
        path="/edge/v1/ask",
        kind="ask",
        action="ask",
        summary="An answer from the box's own documents, with its citations; server-sent events where `stream` is set.",
        handle=ask,
        body=protocol.AskRequest,
        example=protocol.AskRequest(question="What does alarm E17 mean?"),
        reply=protocol.Answer,
        events={"sources": protocol.Sources, "sentence": protocol.Sentence, "done": protocol.Answer},
    ),
    Route(
        method="GET",
        path="/edge/v1/ask/{id}",
        kind="ask.poll",
        action="ask",
        summary="One of the latest answers, or how far it is.",
        handle=poll_answer,
        reply=protocol.Answer,
    ),
    Route(
        method="DELETE",
        path="/edge/v1/ask/{id}",
        kind="ask.cancel",
        action="ask",
        summary="Stop answering a question.",
        handle=cancel_answer,
        reply=protocol.Acknowledged,
    ),
    Route(
        method="POST",
        path="/edge/v1/feedback",
        kind="feedback",
        action="ask",
        summary="What a person thinks of an answer; `hit` counts its citations from 0.",
        handle=feedback,
        body=protocol.FeedbackRequest,
        example=protocol.FeedbackRequest(answer_id="req-0123456789abcdef0123", verdict="good", hit=0),
        reply=protocol.Acknowledged,
    ),
    Route(
        method="POST",
        path="/edge/v1/search",
        kind="search",
        action="ask",
        summary="The passages nearest to a query.",
        handle=search,
        body=protocol.SearchRequest,
        example=protocol.SearchRequest(query="gland packing torque", mode="hybrid", k=3),
        reply=protocol.SearchReply,
    ),
    Route(
        method="POST",
        path="/edge/v1/collections",
        kind="collections.change",
        action="administer",
        summary="Make a collection, or change how sensitive it is and who may read it.",
        handle=change_collection,
        body=protocol.CollectionChange,
        example=protocol.CollectionChange(name="personnel", sensitivity="confidential", gids=[1001]),
        reply=protocol.Collection,
    ),
    Route(
        method="GET",
        path="/edge/v1/collections",
        kind="collections",
        action="administer",
        summary="The collections, how sensitive each is and who may read it.",
        handle=list_collections,
        reply=protocol.CollectionList,
    ),
    Route(
        method="POST",
        path="/edge/v1/documents",
        kind="documents.add",
        action="administer",
        summary="Add a document, in place of an older one of the same name.",
        handle=add_document,
        body=protocol.DocumentAdd,
        example=protocol.DocumentAdd(name="note.md", content=b"# Note\n\nThe pump is green.\n"),
        reply=protocol.DocumentAdded,
        large=True,
    ),
    Route(
        method="GET",
        path="/edge/v1/documents",
        kind="documents",
        action="ask",
        summary="The documents that the peer may read.",
        handle=list_documents,
        reply=protocol.DocumentList,
    ),
    Route(
        method="GET",
        path="/edge/v1/documents/{id}",
        kind="documents",
        action="ask",
        summary="One document.",
        handle=show_document,
        reply=protocol.Document,
    ),
    Route(
        method="GET",
        path="/edge/v1/documents/{id}/text",
        kind="documents.text",
        action="ask",
        summary="Characters `start` to `end` of a document's text: a cited passage.",
        handle=read_text,
        reply=protocol.Passage,
        query=("start", "end"),
    ),
    Route(
        method="DELETE",
        path="/edge/v1/documents/{id}",
        kind="documents.remove",
        action="administer",
        summary="Remove a document and whatever was derived from it.",
        handle=remove_document,
        reply=protocol.Removed,
    ),
)

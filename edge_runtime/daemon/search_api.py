"""Search: the passages nearest to a query."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.library import reader_of

if TYPE_CHECKING:
    pass
from edge_runtime.daemon.collections_api import sensitivity

# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


async def search(call: Call, body: knowledge_protocol.SearchRequest) -> Reply:
    shelf = await call.daemon.library.opened()
    from edge_runtime.knowledge.search import search as look  # noqa: PLC0415

    collection = body.collection or protocol.DEFAULT_COLLECTION
    await sensitivity(call, collection)
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
    return knowledge_protocol.SearchReply(
        hits=[
            knowledge_protocol.Hit(
                document=hit.document,
                document_id=hit.document_id,
                locator=knowledge_protocol.Locator(
                    start=hit.start, end=hit.end, page=hit.page, heading=hit.heading[-1] if hit.heading else None
                ),
                score=round(float(hit.score), 6),
                text=hit.text,
            )
            for hit in found
        ]
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/edge/v1/search",
        kind="search",
        action="ask",
        summary="The passages nearest to a query.",
        handle=search,
        body=knowledge_protocol.SearchRequest,
        example=knowledge_protocol.SearchRequest(query="gland packing torque", mode="hybrid", k=3),
        reply=knowledge_protocol.SearchReply,
    ),
)

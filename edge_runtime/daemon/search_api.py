"""Search: the passages nearest to a query, and the weights of its two sides fitted from labelled queries."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.daemon import collections_api
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.collections_api import Place
from edge_runtime.daemon.library import reader_of
from edge_runtime.errors import RefusedError

if TYPE_CHECKING:
    from edge_runtime.daemon.vectors import DocumentEmbedder
    from edge_runtime.knowledge.collections import Reader
    from edge_runtime.knowledge.records import Matrix
    from edge_runtime.knowledge.search import Found, Ranking, Wanted
    from edge_runtime.knowledge.tuning import Judged

# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.

EMBEDDED_CHARS = 4000  # of a query; its meaning is blurred long before that
_EMBEDDED_AT_ONCE = 32  # queries


async def search(call: Call, body: knowledge_protocol.SearchRequest) -> Reply:
    questions = call.daemon.library.questions
    with questions.admit(str(call.peer), [body.query], privileged=call.administers):
        place = await collections_api.place(call, body.collection or protocol.DEFAULT_COLLECTION)
        if body.mode == "dense" and place.embedder is None:
            raise RefusedError(collections_api.NO_VECTORS)
        async with questions.turns:
            call.running.start()
            return await _search(call, place, body)


async def _search(call: Call, place: Place, body: knowledge_protocol.SearchRequest) -> Reply:
    from edge_runtime.knowledge import reranking  # noqa: PLC0415
    from edge_runtime.knowledge.search import rank  # noqa: PLC0415

    began = time.perf_counter()
    reranker = call.daemon.reranker if body.rerank_ms else None
    laps: dict[str, float] = {}
    vector = None
    if body.mode != "lexical" and place.embedder is not None:
        (vector,) = await _vectors(place.embedder, [body.query])
        laps["embed"] = _ms(began)
    ranking = await asyncio.to_thread(
        rank, place.index, body.query, vector, _wanted(call, place, body, deep=reranker is not None)
    )
    laps |= ranking.timings_ms
    found, reranked = ranking.found, 0
    contested = reranking.contested(found) if reranker is not None else ()
    if reranker is not None and contested:
        asked = time.perf_counter()
        texts = [reranking.passage(one) for one in contested]
        likely = await reranker.judge(body.query[:EMBEDDED_CHARS], texts, milliseconds=body.rerank_ms)
        found, reranked = reranking.reorder(found, likely), len(likely)
        laps["rerank"] = _ms(asked)
    laps["total"] = _ms(began)
    reply = knowledge_protocol.SearchReply(hits=[_hit(one, explain=body.explain) for one in found[: body.k]])
    if body.explain:
        scan: knowledge_protocol.Scan = "none"
        if vector is not None:
            scan = "coarse" if await asyncio.to_thread(place.index.scanned) else "exact"
        report = _report(ranking, scan=scan, laps=laps, reranked=reranked)
        reply = msgspec.structs.replace(reply, report=report)
    return reply


def _wanted(call: Call, place: Place, body: knowledge_protocol.SearchRequest, *, deep: bool) -> Wanted:
    from edge_runtime.knowledge import reranking  # noqa: PLC0415
    from edge_runtime.knowledge.search import Wanted  # noqa: PLC0415

    return Wanted(
        collection=place.collection,
        mode=body.mode,
        k=max(body.k, reranking.READ) if deep else body.k,
        readers=_reader(call, place),
        filter=body.filter,
        fusion=body.fusion,
        weight=body.weight,
    )


def _reader(call: Call, place: Place) -> Reader | None:
    """Who asks; a mounted collection's readers are those of the mount, which were looked at already."""
    return None if place.mounted else reader_of(call.peer, administers=call.administers)


def _hit(found: Found, *, explain: bool) -> knowledge_protocol.Hit:
    hit = knowledge_protocol.Hit(
        document=found.document,
        document_id=found.document_id,
        locator=knowledge_protocol.Locator(
            start=found.start, end=found.end, page=found.page, heading=found.heading[-1] if found.heading else None
        ),
        score=round(float(found.score), 6),
        text=found.text,
    )
    if not explain:
        return hit
    parts = knowledge_protocol.HitParts(
        cosine=_short(found.dense),
        bm25=_short(found.bm25),
        lexical=round(float(found.lexical), 6),
        dense_rank=found.dense_rank,
        lexical_rank=found.lexical_rank,
        sentence=_short(found.sentence),
        rerank=_short(found.rerank),
    )
    return msgspec.structs.replace(hit, parts=parts)


def _report(
    ranking: Ranking, *, scan: knowledge_protocol.Scan, laps: dict[str, float], reranked: int
) -> knowledge_protocol.SearchReport:
    return knowledge_protocol.SearchReport(
        expression=ranking.expression,
        weight=round(ranking.leaning.weight, 4),
        reason=ranking.leaning.reason,
        dropped=list(ranking.dropped),
        scan=scan,
        timings_ms={name: round(value, 2) for name, value in laps.items()},
        reranked=reranked,
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def _ms(since: float) -> float:
    return 1e3 * (time.perf_counter() - since)


async def _vectors(embedder: DocumentEmbedder, queries: list[str]) -> list[Matrix]:
    """One unit vector (width,) a query, from its beginning."""
    texts = [query[:EMBEDDED_CHARS] for query in queries]
    return [rows[0] for rows in (await embedder.embed(texts, kind="query")).rows]


async def tune(call: Call, body: knowledge_protocol.TuneRequest) -> Reply:
    from edge_runtime.knowledge.search import weights  # noqa: PLC0415
    from edge_runtime.knowledge.tuning import fit  # noqa: PLC0415

    questions = call.daemon.library.questions
    texts = [one.query for one in body.queries]
    with questions.admit(str(call.peer), texts, privileged=call.administers):
        collection = body.collection or protocol.DEFAULT_COLLECTION
        collections_api.refuse_mounted(call.daemon, collection)
        place = await collections_api.place(call, collection)
        if place.embedder is None:
            raise RefusedError(collections_api.NO_VECTORS)
        call.running.start()
        judged: list[Judged] = []
        for first in range(0, len(texts), _EMBEDDED_AT_ONCE):
            some = body.queries[first : first + _EMBEDDED_AT_ONCE]
            vectors = await _vectors(place.embedder, [one.query for one in some])
            for labelled, vector in zip(some, vectors, strict=True):
                async with questions.turns:
                    judged.append(await asyncio.to_thread(_judge, call, place, labelled, vector))
        start = weights(place.index, place.collection)
        fitted = await asyncio.to_thread(fit, judged, start)
        settings = fitted.weights.settings(place.collection)
        kept = body.keep and fitted.after > fitted.before
        if kept:
            await asyncio.to_thread(place.index.keep_settings, settings)
    return knowledge_protocol.TuneReply(
        before=round(fitted.before, 4),
        after=round(fitted.after, 4),
        lexical=round(fitted.lexical, 4),
        dense=round(fitted.dense, 4),
        weights=settings,
        kept=kept,
        queries=len(judged),
    )


def _judge(call: Call, place: Place, labelled: knowledge_protocol.LabelledQuery, vector: Matrix) -> Judged:
    from edge_runtime.knowledge.search import Wanted, collect  # noqa: PLC0415
    from edge_runtime.knowledge.tuning import judge  # noqa: PLC0415

    pool = collect(
        place.index, labelled.query, vector, Wanted(collection=place.collection, readers=_reader(call, place))
    )
    rows = place.index.chunks(list({**pool.dense, **pool.lexical}))
    return judge(labelled, rows, pool)


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
    Route(
        method="POST",
        path="/edge/v1/search/tune",
        kind="search.tune",
        action="administer",
        summary="Fit the weights of hybrid search from labelled queries.",
        handle=tune,
        body=knowledge_protocol.TuneRequest,
        example=knowledge_protocol.TuneRequest(
            queries=[
                knowledge_protocol.LabelledQuery(query=query, texts=["35 Nm"])
                for query in (
                    "gland bolt torque",
                    "how tight are the gland bolts?",
                    "torque of the gland",
                    "Nm for the gland bolts",
                    "tighten the gland",
                )
            ],
            keep=False,
        ),
        reply=knowledge_protocol.TuneReply,
    ),
)

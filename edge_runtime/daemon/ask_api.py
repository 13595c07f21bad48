"""Questions to the documents: ask, poll, cancel, and what a person thinks of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.daemon import collections_api
from edge_runtime.daemon.call import Call, Reply, Route, within
from edge_runtime.daemon.collections_api import Place
from edge_runtime.daemon.library import reader_of
from edge_runtime.daemon.pace import Pace
from edge_runtime.daemon.writer import Pen
from edge_runtime.errors import EngineError, RefusedError, RequestError

if TYPE_CHECKING:
    from edge_runtime.knowledge.asking import Question

# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


async def ask(call: Call, body: knowledge_protocol.AskRequest) -> Reply:
    if body.edge is not None:
        call.running.priority = body.edge.priority
    deadline_ms = body.edge.deadline_ms if body.edge is not None else None
    places = call.daemon.library.questions
    with places.admit(str(call.peer), [body.question], privileged=call.administers):
        async with within(deadline_ms, spent=call.running.age):
            return await _ask(call, body, None if deadline_ms is None else deadline_ms / 1000)


async def _ask(call: Call, body: knowledge_protocol.AskRequest, deadline_s: float | None) -> Reply:
    place, answers = (
        await collections_api.place(call, body.collection or protocol.DEFAULT_COLLECTION),
        call.daemon.answers,
    )
    if place.embedder is None:
        raise RefusedError(collections_api.NO_VECTORS)
    from edge_runtime.knowledge.asking import Asker  # noqa: PLC0415

    daemon = call.daemon
    asker = Asker(
        place.index,
        place.embedder,
        confidence=daemon.config.knowledge.confidence,
        turns=daemon.library.questions.turns,
    )
    question = _question(call, body, place, deadline_s)
    answers.begin(call.id, call.peer)
    call.running.start()
    answer: knowledge_protocol.Answer | None = None
    try:
        async with contextlib.aclosing(asker.ask(question)) as steps:
            async for step in steps:
                match step:
                    case knowledge_protocol.Answer():
                        answer = step
                        answers.put(step, call.peer)
                    case knowledge_protocol.Sources() if body.stream:
                        await call.stream.send(step, "sources")
                    case knowledge_protocol.Sentence() if body.stream:
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


def _question(call: Call, body: knowledge_protocol.AskRequest, place: Place, deadline_s: float | None) -> Question:
    from edge_runtime.knowledge.asking import Question  # noqa: PLC0415

    daemon = call.daemon
    return Question(
        id=call.id,
        text=body.question,
        collection=place.collection,
        mode=body.mode,
        assembly=body.assembly,
        filter=body.filter,
        sensitivity=place.sensitivity,
        seconds=None if deadline_s is None else deadline_s - call.running.age,
        reader=reader_of(call.peer, administers=call.administers),
        writer=Pen(
            call.daemon.writer,
            str(call.peer),
            call.running.priority,
            call.administers,
            # A reading may come late and take several texts: each counts from when it was asked for.
            lambda: Pace(
                daemon.metrics, priority=call.running.priority, route=call.route.kind, arrived=time.monotonic()
            ),
        ),
    )


async def poll_answer(call: Call, _: None) -> Reply:
    return call.daemon.answers.get(call.part("id"), call.only_own)


async def cancel_answer(call: Call, _: None) -> Reply:
    call.daemon.requests.cancel(call.part("id"), call.only_own)
    return protocol.Acknowledged()


async def feedback(call: Call, body: knowledge_protocol.FeedbackRequest) -> Reply:
    answer = call.daemon.answers.get(body.answer_id, call.only_own)
    if body.hit is not None and not 0 <= body.hit < len(answer.citations):
        raise RequestError(f"the answer has {len(answer.citations)} citations; hit counts from 0", param="hit")
    await asyncio.to_thread((await call.daemon.library.opened()).journal.note, body, str(call.peer))
    return protocol.Acknowledged()


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/edge/v1/ask",
        kind="ask",
        action="ask",
        summary="An answer from the box's own documents, with its citations; server-sent events where `stream` is set.",
        handle=ask,
        body=knowledge_protocol.AskRequest,
        example=knowledge_protocol.AskRequest(question="What does alarm E17 mean?"),
        reply=knowledge_protocol.Answer,
        events={
            "sources": knowledge_protocol.Sources,
            "sentence": knowledge_protocol.Sentence,
            "done": knowledge_protocol.Answer,
        },
    ),
    Route(
        method="GET",
        path="/edge/v1/ask/{id}",
        kind="ask.poll",
        action="ask",
        summary="One of the latest answers, or how far it is.",
        handle=poll_answer,
        reply=knowledge_protocol.Answer,
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
        body=knowledge_protocol.FeedbackRequest,
        example=knowledge_protocol.FeedbackRequest(answer_id="req-0123456789abcdef0123", verdict="good", hit=0),
        reply=protocol.Acknowledged,
    ),
)

"""``POST /edge/v1/score``: how probable each of some choices is after a prompt, in one batch of the engine."""

from __future__ import annotations

import asyncio

from edge_runtime import engine_protocol, protocol
from edge_runtime.daemon.admission import Bid, Place
from edge_runtime.daemon.call import Call, Reply, Route, within
from edge_runtime.daemon.openai_api import use_writer
from edge_runtime.daemon.scores import check, probabilities, without_content
from edge_runtime.daemon.writer import Writer
from edge_runtime.engine.messages import Params, Score, Scored, Submit
from edge_runtime.openai_protocol import Message


async def score(call: Call, body: engine_protocol.ScoreRequest) -> Reply:
    check(body)
    prior = without_content(body)
    model, adapter = call.daemon.adapters.choose(body.model)
    edge = body.edge or protocol.Urgency()
    call.running.priority = edge.priority
    asked = [body] if prior is None else [body, prior]
    async with use_writer(call, model, edge.deadline_ms) as writer:
        bid = Bid(
            user=str(call.peer),
            priority=edge.priority,
            privileged=call.administers,
            prompt_bytes=sum(_size(one) for one in asked),
            deadline_ms=edge.deadline_ms,
            spent_ms=call.running.age * 1000,
        )
        with writer.engine.admit(bid) as place:
            async with within(edge.deadline_ms, spent=call.running.age):
                scored = await _score_all(call, writer, place, asked, adapter)
    found = scored[0]
    call.prompt_tokens = sum(one.prompt_tokens for one in scored)
    for one in scored:
        call.pace().read(one)
    likely = probabilities(
        found.logprobs,
        scored[1].logprobs if prior is not None else None,
        temperature=body.calibration.temperature if body.calibration is not None else 1.0,
    )
    return engine_protocol.ScoreReply(
        id=call.id,
        model=writer.name,
        choices=[
            engine_protocol.ScoredChoice(text=text, logprob=logprob, probability=probability, tokens=tokens)
            for text, logprob, probability, tokens in zip(
                body.choices, found.logprobs, likely, found.tokens, strict=True
            )
        ],
        best=max(range(len(likely)), key=likely.__getitem__),
        calibrated=prior is not None,
        edge=protocol.EdgeReport(cache=protocol.CacheReport(hit_tokens=found.cached_tokens, tier=found.tier)),
    )


async def _score_all(
    call: Call, writer: Writer, place: Place, asked: list[engine_protocol.ScoreRequest], adapter: str
) -> list[Scored]:
    """Both prompts at once: the engine reads what they share but once."""
    call.running.start()
    orders = [await _order(call, writer, one, adapter) for one in asked]
    work = [asyncio.ensure_future(writer.engine.score(order, place)) for order in orders]
    try:
        return await asyncio.gather(*work)
    finally:
        for one in work:
            one.cancel()


async def _order(call: Call, writer: Writer, request: engine_protocol.ScoreRequest, adapter: str) -> Score:
    submit = Submit(id="", prompt=request.prompt or "", params=Params(ignore_eos=True), domain=str(call.peer))
    if request.messages is not None:
        messages = [Message(role=one.role, content=one.content) for one in request.messages]
        submit = await writer.prepare(messages, submit)
    return Score(
        id="",
        prompt=submit.prompt,
        choices=request.choices,
        add_bos=submit.add_bos,
        priority=call.running.priority,
        domain=str(call.peer),
        public=submit.public,
        adapter=adapter,
    )


def _size(request: engine_protocol.ScoreRequest) -> int:
    texts = [request.prompt or "", *(one.content for one in request.messages or ()), *request.choices]
    return sum(len(text.encode()) for text in texts)


ROUTE = Route(
    method="POST",
    path="/edge/v1/score",
    kind="score",
    action="ask",
    summary="How probable each of some choices is after a prompt, compared with where there is nothing to judge.",
    handle=score,
    body=engine_protocol.ScoreRequest,
    example=engine_protocol.ScoreRequest(
        messages=[
            engine_protocol.ScoreMessage(role="system", content="Say which kind of trouble a note is about."),
            engine_protocol.ScoreMessage(role="user", content="The gland leaks again."),
        ],
        choices=["mechanical", "electrical", "other"],
    ),
    reply=engine_protocol.ScoreReply,
)

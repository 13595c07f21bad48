"""OpenAI's routes under ``/v1`` that compute: chat, completions and embeddings.

What this daemon does not do is refused by name, never ignored: by
:mod:`edge_runtime.daemon.unsupported`, or by the type of the body.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from edge_runtime import openai_protocol, protocol
from edge_runtime.daemon import tools, unsupported
from edge_runtime.daemon.admission import Bid, Place
from edge_runtime.daemon.call import Call, Reply, Route, within
from edge_runtime.daemon.children import rows
from edge_runtime.daemon.choices import Choices, finish_reason
from edge_runtime.daemon.engine import Engine
from edge_runtime.daemon.generation import Draft, completion_logprobs, sampling, token_logprob
from edge_runtime.daemon.structures import read_structure
from edge_runtime.daemon.writer import Writer
from edge_runtime.engine.messages import Done, Submit, Token
from edge_runtime.errors import ModelNotFoundError, RequestError


@contextlib.asynccontextmanager
async def use_writer(call: Call, model: str, deadline_ms: int | None) -> AsyncIterator[Writer]:
    """The writer of that name while the block lasts; OpenAI's clients may also ask for ``default``.

    Raises:
        DeadlineError: others had to leave for it, and have not within the deadline. And as :meth:`Pool.use`.
    """
    async with contextlib.AsyncExitStack() as stack:
        async with within(deadline_ms):
            writer = await stack.enter_async_context(call.daemon.pool.use(model))
        yield writer


@contextlib.asynccontextmanager
async def _admitted(
    call: Call, engine: Engine, body: openai_protocol.Sampling, *, size: int, limit: int, adapter: str
) -> AsyncIterator[tuple[Place, Submit]]:
    """A place for ``size`` bytes of prompt and texts of at most ``limit`` tokens, and what the engine is to do with
    them but for prompt and sampling.

    Raises:
        BusyError: the queue is full, or the peer has enough requests in it.
        DeadlineError: the deadline cannot be met, or has passed.
        RequestError: a collection is named, which only questions can be put to.
    """
    edge = body.edge or protocol.EdgeRequest()
    if edge.collection is not None:
        raise RequestError(
            "edge.collection is not supported here; ask a collection with /edge/v1/ask", param="edge.collection"
        )
    call.running.priority = edge.priority
    bid = Bid(
        user=str(call.peer),
        priority=edge.priority,
        privileged=call.administers,
        places=body.n or 1,
        prompt_bytes=size,
        tokens=limit,
        whole=bool(body.ignore_eos),
        deadline_ms=edge.deadline_ms,
        spent_ms=call.running.age * 1000,
    )
    submit = Submit(
        id="",
        prompt="",
        priority=edge.priority,
        domain=str(call.peer),
        adapter=adapter,
        deterministic=edge.deterministic,
    )
    with engine.admit(bid) as place:
        async with within(edge.deadline_ms, spent=call.running.age):
            yield place, submit


async def chat(call: Call, body: openai_protocol.ChatRequest) -> Reply:
    model, adapter = call.daemon.adapters.choose(body.model, body.edge)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    limit = body.max_completion_tokens or body.max_tokens or call.daemon.config.engine.max_tokens
    offer = tools.read_offer(body, limit)
    structure = read_structure(body, limit) if offer is None else offer.structure
    size = sum(len(message.text.encode()) for message in body.messages) + (0 if offer is None else offer.size)
    async with (
        use_writer(call, model, body.edge.deadline_ms if body.edge is not None else None) as writer,
        _admitted(call, writer.engine, body, size=size, limit=limit, adapter=adapter) as (place, order),
    ):
        params = sampling(body, limit=limit, logprobs=(body.top_logprobs or 0) if body.logprobs else None)
        submit = await writer.prepare(
            body.messages,
            msgspec.structs.replace(order, params=params, structure=structure),
            tools=() if offer is None else offer.tools,
        )
        choices = Choices(call, writer.engine, place, submit, count=body.n or 1)
        if body.stream:
            return await _stream_chat(call, choices, writer.name, body)
        drafts = await _collect(choices, [Draft() for _ in range(body.n or 1)])
    return openai_protocol.ChatCompletion(
        id=call.id,
        created=int(time.time()),
        model=writer.name,
        choices=[_message(index, draft, done, body) for index, (draft, done) in enumerate(drafts)],
        usage=choices.usage,
        edge=choices.report,
    )


async def _collect(choices: Choices, drafts: list[Draft]) -> list[tuple[Draft, Done]]:
    """Every text to its end, with how it ended."""
    async with contextlib.aclosing(choices.steps()) as steps:
        async for index, step in steps:
            if isinstance(step, Token):
                drafts[index].add(step)
    return list(zip(drafts, choices.ended, strict=True))


def _message(index: int, draft: Draft, done: Done, body: openai_protocol.ChatRequest) -> openai_protocol.ChatChoice:
    speech = tools.speech(body)
    speech.feed(draft.text, last=True)
    return openai_protocol.ChatChoice(
        index=index,
        message=speech.message,
        finish_reason=speech.reason(finish_reason(done)),
        logprobs=openai_protocol.Logprobs(content=[token_logprob(item) for item in draft.tokens])
        if body.logprobs
        else None,
    )


async def _stream_chat(
    call: Call, choices: Choices, model: str, body: openai_protocol.ChatRequest
) -> web.StreamResponse:
    created = int(time.time())

    async def send(*chunk: openai_protocol.ChunkChoice, usage: openai_protocol.Usage | None = None) -> None:
        report = choices.report if chunk and choices.finished else msgspec.UNSET
        await call.stream.send(
            openai_protocol.ChatChunk(
                id=call.id, created=created, model=model, choices=list(chunk), usage=usage, edge=report
            )
        )

    speeches = [tools.speech(body) for _ in range(body.n or 1)]
    opened: set[int] = set()
    async with contextlib.aclosing(choices.steps()) as steps:
        async for index, step in steps:
            speech = speeches[index]
            if isinstance(step, Done):
                for delta in speech.feed("", last=True):
                    await send(openai_protocol.ChunkChoice(index=index, delta=delta))
                reason = speech.reason(finish_reason(step))
                await send(
                    openai_protocol.ChunkChoice(index=index, delta=openai_protocol.Delta(), finish_reason=reason)
                )
                continue
            if index not in opened:
                opened.add(index)
                await send(
                    openai_protocol.ChunkChoice(index=index, delta=openai_protocol.Delta(role="assistant", content=""))
                )
            deltas = speech.feed(step.text) or ([openai_protocol.Delta(content="")] if body.logprobs else [])
            logprobs = openai_protocol.Logprobs(content=[token_logprob(step)]) if body.logprobs else None
            for delta in deltas:
                await send(openai_protocol.ChunkChoice(index=index, delta=delta, logprobs=logprobs))
                logprobs = None
    if body.stream_options is not None and body.stream_options.include_usage:
        await send(usage=choices.usage)
    await call.stream.send("[DONE]")
    return await call.stream.end()


async def complete(call: Call, body: openai_protocol.CompletionRequest) -> Reply:
    model, adapter = call.daemon.adapters.choose(body.model, body.edge)
    limit = body.max_tokens or call.daemon.config.engine.max_tokens
    structure = read_structure(body, limit)
    size = len(body.prompt.encode())
    async with (
        use_writer(call, model, body.edge.deadline_ms if body.edge is not None else None) as writer,
        _admitted(call, writer.engine, body, size=size, limit=limit, adapter=adapter) as (place, order),
    ):
        params = sampling(body, limit=limit, logprobs=body.logprobs)
        submit = msgspec.structs.replace(order, prompt=body.prompt, params=params, structure=structure)
        choices = Choices(call, writer.engine, place, submit, count=body.n or 1)
        if body.stream:
            return await _stream_completion(call, choices, writer.name, body)
        drafts = await _collect(choices, [Draft(body.prompt if body.echo else "") for _ in range(body.n or 1)])
    return openai_protocol.Completion(
        id=call.id,
        created=int(time.time()),
        model=writer.name,
        choices=[
            openai_protocol.CompletionChoice(
                index=index,
                text=draft.text,
                finish_reason=finish_reason(done),
                logprobs=completion_logprobs(draft.tokens, offset=draft.offset) if body.logprobs is not None else None,
            )
            for index, (draft, done) in enumerate(drafts)
        ],
        usage=choices.usage,
        edge=choices.report,
    )


async def _stream_completion(
    call: Call, choices: Choices, model: str, body: openai_protocol.CompletionRequest
) -> web.StreamResponse:
    created = int(time.time())

    async def send(*chunk: openai_protocol.CompletionChoice, usage: openai_protocol.Usage | None = None) -> None:
        report = choices.report if chunk and choices.finished else msgspec.UNSET
        await call.stream.send(
            openai_protocol.Completion(
                id=call.id, created=created, model=model, choices=list(chunk), usage=usage, edge=report
            )
        )

    offsets = [0] * (body.n or 1)
    async with contextlib.aclosing(choices.steps()) as steps:
        async for index, step in steps:
            if isinstance(step, Done):
                await send(openai_protocol.CompletionChoice(index=index, text="", finish_reason=finish_reason(step)))
                continue
            if offsets[index] == 0 and body.echo and body.prompt:
                offsets[index] = len(body.prompt)
                await send(openai_protocol.CompletionChoice(index=index, text=body.prompt, finish_reason=None))
            logprobs = completion_logprobs([step], offset=offsets[index]) if body.logprobs is not None else None
            offsets[index] += len(step.text)
            if step.text or logprobs is not None:
                await send(
                    openai_protocol.CompletionChoice(index=index, text=step.text, finish_reason=None, logprobs=logprobs)
                )
    if body.stream_options is not None and body.stream_options.include_usage:
        await send(usage=choices.usage)
    await call.stream.send("[DONE]")
    return await call.stream.end()


async def embed(call: Call, body: openai_protocol.EmbeddingsRequest) -> Reply:
    name = call.daemon.config.models.embedder
    if body.model not in (name, "default"):
        raise ModelNotFoundError(f"the model {body.model} is not here; this box embeds with {name}", param="model")
    texts = [body.input] if isinstance(body.input, str) else body.input
    with call.daemon.embedder.admit(str(call.peer), texts, privileged=call.administers):
        call.running.start()
        vectors = await call.daemon.embedder.embed(texts)
    if body.dimensions not in (None, vectors.width):
        raise RequestError(f"{name} has {vectors.width} dimensions and cannot be shortened", param="dimensions")
    call.prompt_tokens = vectors.tokens
    size = len(vectors.data) // len(texts)
    if body.encoding_format == "base64":
        data: list[list[float] | str] = [
            base64.b64encode(vectors.data[start : start + size]).decode("ascii")
            for start in range(0, len(vectors.data), size)
        ]
    else:
        data = [list(row) for row in rows(vectors)]
    return openai_protocol.Embeddings(
        data=[openai_protocol.Embedding(index=index, embedding=item) for index, item in enumerate(data)],
        model=name,
        usage=openai_protocol.EmbeddingsUsage(prompt_tokens=vectors.tokens, total_tokens=vectors.tokens),
    )


_CHAT = openai_protocol.ChatRequest(
    model="default", messages=[openai_protocol.Message(role="user", content="Name three primes.")], max_tokens=32
)

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/v1/chat/completions",
        kind="chat",
        action="ask",
        summary="The next message of a conversation; server-sent events where `stream` is set.",
        handle=chat,
        body=openai_protocol.ChatRequest,
        refuses=unsupported.CHAT,
        example=_CHAT,
        reply=openai_protocol.ChatCompletion,
        events={"": openai_protocol.ChatChunk},
    ),
    Route(
        method="POST",
        path="/v1/completions",
        kind="completion",
        action="ask",
        summary="What follows a text, without a chat template.",
        handle=complete,
        body=openai_protocol.CompletionRequest,
        refuses=unsupported.COMPLETION,
        example=openai_protocol.CompletionRequest(model="default", prompt="The first primes are", max_tokens=16),
        reply=openai_protocol.Completion,
        events={"": openai_protocol.Completion},
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        kind="embeddings",
        action="ask",
        summary="One unit vector a text.",
        handle=embed,
        body=openai_protocol.EmbeddingsRequest,
        example=openai_protocol.EmbeddingsRequest(model="default", input="low suction pressure"),
        reply=openai_protocol.Embeddings,
    ),
)

"""OpenAI's routes under ``/v1``: chat, completions, embeddings and models.

What this daemon does not do yet (tools, JSON schemas, more than one choice) is refused by name, never ignored: by
:mod:`edge_runtime.daemon.unsupported`, or by the type of the body.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import msgspec
from aiohttp import web

from edge_runtime import openai_protocol, protocol
from edge_runtime.daemon import unsupported
from edge_runtime.daemon.call import Call, Reply, Route, within
from edge_runtime.daemon.children import rows
from edge_runtime.daemon.generation import Draft, completion_logprobs, sampling, token_logprob
from edge_runtime.engine.messages import Done, Token
from edge_runtime.errors import EngineError, ModelNotFoundError, RequestError


def _check_writer(call: Call, model: str) -> str:
    """The writer's name; OpenAI's clients may also ask for ``default``."""
    name = call.daemon.writer.name
    if model not in (name, "default"):
        raise ModelNotFoundError(f"the model {model} is not here; this box writes with {name}", param="model")
    return name


@dataclass(slots=True)
class Generation:
    """One request's tokens on their way to the client, counted for the log, the metrics and the list of requests."""

    call: Call
    tokens: AsyncGenerator[Token | Done, None]
    done: Done | None = None

    async def steps(self) -> AsyncIterator[Token]:
        began = time.perf_counter()
        async with contextlib.aclosing(self.tokens):
            async for step in self.tokens:
                match step:
                    case Token(tokens=count):
                        if self.call.running.tokens == 0:
                            self.call.daemon.metrics.first_token.observe(
                                time.perf_counter() - began, route=self.call.route.kind
                            )
                        self.call.running.tokens = self.call.completion_tokens = count
                        yield step
                    case Done():
                        self._finish(step)

    def _finish(self, done: Done) -> None:
        self.done = done
        self.call.prompt_tokens = done.prompt_tokens
        self.call.completion_tokens = done.completion_tokens

    @property
    def ended(self) -> Done:
        if self.done is None:
            raise EngineError("the engine ended a request without saying how; send it again")
        return self.done

    @property
    def reason(self) -> openai_protocol.FinishReason:
        return "length" if self.ended.reason == "length" else "stop"

    @property
    def usage(self) -> openai_protocol.Usage:
        done = self.ended
        return openai_protocol.Usage(
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            total_tokens=done.prompt_tokens + done.completion_tokens,
        )

    @property
    def report(self) -> protocol.EdgeReport:
        cached = self.ended.cached_tokens
        return protocol.EdgeReport(cache=protocol.CacheReport(hit_tokens=cached, tier="live" if cached else "none"))


def _check_edge(body: openai_protocol.Sampling) -> int | None:
    """The deadline in milliseconds. Raises RequestError: a collection is named, which only questions can be put to."""
    if body.edge is None:
        return None
    if body.edge.collection is not None:
        raise RequestError(
            "edge.collection is not supported here; ask a collection with /edge/v1/ask", param="edge.collection"
        )
    return body.edge.deadline_ms


async def chat(call: Call, body: openai_protocol.ChatRequest) -> Reply:
    async with within(_check_edge(body)):
        return await _chat(call, body)


async def _chat(call: Call, body: openai_protocol.ChatRequest) -> Reply:
    model = _check_writer(call, body.model)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    params = sampling(
        body,
        limit=body.max_completion_tokens or body.max_tokens or call.daemon.config.engine.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    tokens = call.daemon.writer.generate(body.messages, params, on_start=call.running.start)
    generation = Generation(call, tokens)
    if body.stream:
        return await _stream_chat(generation, model, body)
    draft = Draft()
    async for token in generation.steps():
        draft.add(token)
    choice = openai_protocol.ChatChoice(
        index=0,
        message=openai_protocol.AssistantMessage(content=draft.text),
        finish_reason=generation.reason,
        logprobs=openai_protocol.Logprobs(content=[token_logprob(item) for item in draft.tokens])
        if body.logprobs
        else None,
    )
    return openai_protocol.ChatCompletion(
        id=call.id,
        created=int(time.time()),
        model=model,
        choices=[choice],
        usage=generation.usage,
        edge=generation.report,
    )


async def _stream_chat(generation: Generation, model: str, body: openai_protocol.ChatRequest) -> web.StreamResponse:
    call, created = generation.call, int(time.time())

    async def send(
        *choices: openai_protocol.ChunkChoice, usage: openai_protocol.Usage | None = None, last: bool = False
    ) -> None:
        report = generation.report if last else msgspec.UNSET
        await call.stream.send(
            openai_protocol.ChatChunk(
                id=call.id, created=created, model=model, choices=list(choices), usage=usage, edge=report
            )
        )

    opened = False
    async for token in generation.steps():
        if not opened:
            opened = True
            await send(openai_protocol.ChunkChoice(index=0, delta=openai_protocol.Delta(role="assistant", content="")))
        if token.text or body.logprobs:
            logprobs = openai_protocol.Logprobs(content=[token_logprob(token)]) if body.logprobs else None
            await send(
                openai_protocol.ChunkChoice(index=0, delta=openai_protocol.Delta(content=token.text), logprobs=logprobs)
            )
    await send(
        openai_protocol.ChunkChoice(index=0, delta=openai_protocol.Delta(), finish_reason=generation.reason), last=True
    )
    if body.stream_options is not None and body.stream_options.include_usage:
        await send(usage=generation.usage)
    await call.stream.send("[DONE]")
    return await call.stream.end()


async def complete(call: Call, body: openai_protocol.CompletionRequest) -> Reply:
    async with within(_check_edge(body)):
        return await _complete(call, body)


async def _complete(call: Call, body: openai_protocol.CompletionRequest) -> Reply:
    model = _check_writer(call, body.model)
    params = sampling(body, limit=body.max_tokens or call.daemon.config.engine.max_tokens, logprobs=body.logprobs)
    tokens = call.daemon.engine.generate(body.prompt, params, on_start=call.running.start)
    generation = Generation(call, tokens)
    if body.stream:
        return await _stream_completion(generation, model, body)
    draft = Draft(body.prompt if body.echo else "")
    async for token in generation.steps():
        draft.add(token)
    choice = openai_protocol.CompletionChoice(
        index=0,
        text=draft.text,
        finish_reason=generation.reason,
        logprobs=completion_logprobs(draft.tokens, offset=draft.offset) if body.logprobs is not None else None,
    )
    return openai_protocol.Completion(
        id=call.id,
        created=int(time.time()),
        model=model,
        choices=[choice],
        usage=generation.usage,
        edge=generation.report,
    )


async def _stream_completion(
    generation: Generation, model: str, body: openai_protocol.CompletionRequest
) -> web.StreamResponse:
    call, created = generation.call, int(time.time())

    async def send(
        *choices: openai_protocol.CompletionChoice, usage: openai_protocol.Usage | None = None, last: bool = False
    ) -> None:
        report = generation.report if last else msgspec.UNSET
        await call.stream.send(
            openai_protocol.Completion(
                id=call.id, created=created, model=model, choices=list(choices), usage=usage, edge=report
            )
        )

    offset = 0
    async for token in generation.steps():
        if offset == 0 and body.echo and body.prompt:
            offset = len(body.prompt)
            await send(openai_protocol.CompletionChoice(index=0, text=body.prompt, finish_reason=None))
        logprobs = completion_logprobs([token], offset=offset) if body.logprobs is not None else None
        offset += len(token.text)
        if token.text or logprobs is not None:
            await send(
                openai_protocol.CompletionChoice(index=0, text=token.text, finish_reason=None, logprobs=logprobs)
            )
    await send(openai_protocol.CompletionChoice(index=0, text="", finish_reason=generation.reason), last=True)
    if body.stream_options is not None and body.stream_options.include_usage:
        await send(usage=generation.usage)
    await call.stream.send("[DONE]")
    return await call.stream.end()


async def embed(call: Call, body: openai_protocol.EmbeddingsRequest) -> Reply:
    name = call.daemon.config.models.embedder
    if body.model not in (name, "default"):
        raise ModelNotFoundError(f"the model {body.model} is not here; this box embeds with {name}", param="model")
    texts = [body.input] if isinstance(body.input, str) else body.input
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


def _cards(call: Call) -> list[openai_protocol.ModelCard]:
    created = int(call.daemon.started)
    children = (call.daemon.engine.child, call.daemon.embedder.child)
    return [
        openai_protocol.ModelCard(id=child.ready.name, created=created) for child in children if child.ready is not None
    ]


async def list_models(call: Call, _: None) -> Reply:
    return openai_protocol.ModelList(data=_cards(call))


async def show_model(call: Call, _: None) -> Reply:
    wanted = call.part("id")
    for card in _cards(call):
        if card.id == wanted:
            return card
    raise ModelNotFoundError(f"the model {wanted} is not loaded; list what is with: GET /v1/models", param="model")


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
    Route(
        method="GET",
        path="/v1/models",
        kind="models",
        action="look",
        summary="The models that are loaded.",
        handle=list_models,
        reply=openai_protocol.ModelList,
    ),
    Route(
        method="GET",
        path="/v1/models/{id}",
        kind="models",
        action="look",
        summary="One loaded model.",
        handle=show_model,
        reply=openai_protocol.ModelCard,
    ),
)

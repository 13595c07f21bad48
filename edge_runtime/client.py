"""The daemon's API as typed calls over its Unix socket: ``Client`` for asyncio, ``connect_sync`` for everything else.

Replies are the structs of :mod:`edge_runtime.protocol`, errors the tree of :mod:`edge_runtime.errors`. One connection a
call; leaving a stream early closes it, and the daemon then stops the work behind it. Nothing is retried here.

The ``openai`` package needs no more than its own transport::

    import httpx2, openai
    transport = httpx2.HTTPTransport(uds="/path/to/edged.sock")
    box = openai.OpenAI(base_url="http://edged/v1", api_key="none", http_client=httpx2.Client(transport=transport))
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import msgspec

from edge_runtime import (
    adapter_protocol,
    engine_protocol,
    knowledge_protocol,
    model_protocol,
    openai_protocol,
    protocol,
)
from edge_runtime.calls import decode, path_of
from edge_runtime.document_calls import DocumentCalls
from edge_runtime.errors import UnreachableError
from edge_runtime.index_calls import IndexCalls
from edge_runtime.search_calls import SearchCalls

AskEvent = knowledge_protocol.Sources | knowledge_protocol.Sentence | knowledge_protocol.Answer
_T = TypeVar("_T")
_P = ParamSpec("_P")


class Client(DocumentCalls, IndexCalls, SearchCalls):
    """Calls to the daemon listening on ``socket``.

    Every call raises UnreachableError where no daemon answers, DeadlineError where one says nothing for ``silence_s``
    seconds (None: wait for as long as it takes), and else the error that the daemon named.
    """

    # ---- knowledge ---------------------------------------------------------------------------------------------

    async def ask(
        self,
        question: str,
        *,
        collection: str = protocol.DEFAULT_COLLECTION,
        mode: knowledge_protocol.AskMode = "auto",
        assembly: knowledge_protocol.Assembly = "auto",
        filter: knowledge_protocol.Filter | None = None,  # noqa: A002 - the wire's name for it
        edge: protocol.Urgency | None = None,
    ) -> knowledge_protocol.Answer:
        body = knowledge_protocol.AskRequest(
            question=question, collection=collection, mode=mode, assembly=assembly, filter=filter, edge=edge
        )
        return await self._call(knowledge_protocol.Answer, "POST", "/edge/v1/ask", body)

    async def ask_stream(
        self,
        question: str,
        *,
        collection: str = protocol.DEFAULT_COLLECTION,
        mode: knowledge_protocol.AskMode = "auto",
        assembly: knowledge_protocol.Assembly = "auto",
        filter: knowledge_protocol.Filter | None = None,  # noqa: A002 - the wire's name for it
        edge: protocol.Urgency | None = None,
    ) -> AsyncGenerator[AskEvent, None]:
        """``Sources`` first, each verified ``Sentence`` as it is ready, and the whole ``Answer`` last."""
        body = knowledge_protocol.AskRequest(
            question=question,
            collection=collection,
            mode=mode,
            assembly=assembly,
            filter=filter,
            stream=True,
            edge=edge,
        )
        async with aclosing(self._stream("POST", "/edge/v1/ask", body)) as events:
            async for event in events:
                match event.name:
                    case "sources":
                        yield decode(event.data, knowledge_protocol.Sources)
                    case "sentence":
                        yield decode(event.data, knowledge_protocol.Sentence)
                    case "done":
                        yield decode(event.data, knowledge_protocol.Answer)
                        return
                    case _:
                        pass  # a newer daemon may say more
        raise UnreachableError("the daemon ended the answer before it was done; its log says why; then ask again")

    async def score(self, request: engine_protocol.ScoreRequest) -> engine_protocol.ScoreReply:
        """How probable each of some choices is after a prompt."""
        return await self._call(engine_protocol.ScoreReply, "POST", "/edge/v1/score", request)

    async def feedback(self, answer_id: str, verdict: knowledge_protocol.Verdict, hit: int | None = None) -> None:
        body = knowledge_protocol.FeedbackRequest(answer_id=answer_id, verdict=verdict, hit=hit)
        await self._read("POST", "/edge/v1/feedback", body)

    # ---- OpenAI's API ------------------------------------------------------------------------------------------

    async def chat(self, request: openai_protocol.ChatRequest) -> openai_protocol.ChatCompletion:
        body = msgspec.structs.replace(request, stream=False)
        return await self._call(openai_protocol.ChatCompletion, "POST", "/v1/chat/completions", body)

    async def chat_stream(
        self, request: openai_protocol.ChatRequest
    ) -> AsyncGenerator[openai_protocol.ChatChunk, None]:
        body = msgspec.structs.replace(request, stream=True)
        async with aclosing(self._chunks("/v1/chat/completions", body)) as chunks:
            async for data in chunks:
                yield decode(data, openai_protocol.ChatChunk)

    async def complete(self, request: openai_protocol.CompletionRequest) -> openai_protocol.Completion:
        body = msgspec.structs.replace(request, stream=False)
        return await self._call(openai_protocol.Completion, "POST", "/v1/completions", body)

    async def complete_stream(
        self, request: openai_protocol.CompletionRequest
    ) -> AsyncGenerator[openai_protocol.Completion, None]:
        body = msgspec.structs.replace(request, stream=True)
        async with aclosing(self._chunks("/v1/completions", body)) as chunks:
            async for data in chunks:
                yield decode(data, openai_protocol.Completion)

    async def _chunks(self, target: str, body: msgspec.Struct) -> AsyncGenerator[str, None]:
        async with aclosing(self._stream("POST", target, body)) as events:
            async for event in events:
                if event.data == "[DONE]":
                    return
                yield event.data
        raise UnreachableError("the daemon ended the stream before it was done; its log says why; then ask again")

    async def embed(self, request: openai_protocol.EmbeddingsRequest) -> openai_protocol.Embeddings:
        return await self._call(openai_protocol.Embeddings, "POST", "/v1/embeddings", request)

    async def models(self) -> openai_protocol.ModelList:
        return await self._call(openai_protocol.ModelList, "GET", "/v1/models")

    async def model_states(self) -> model_protocol.ModelStates:
        """The installed writers, and which of them are in memory."""
        return await self._call(model_protocol.ModelStates, "GET", "/edge/v1/models")

    async def load_model(self, name: str) -> model_protocol.ModelState:
        """Waits until it is in memory. Raises BusyError or RefusedError where it has no room there."""
        return await self._change_model(name, "load")

    async def unload_model(self, name: str) -> model_protocol.ModelState:
        """Raises RefusedError while it is in use, or pinned."""
        return await self._change_model(name, "unload")

    async def pin_model(self, name: str) -> model_protocol.ModelState:
        """Keep it once it is loaded, until the daemon stops."""
        return await self._change_model(name, "pin")

    async def unpin_model(self, name: str) -> model_protocol.ModelState:
        return await self._change_model(name, "unpin")

    async def _change_model(self, name: str, verb: str) -> model_protocol.ModelState:
        return await self._call(model_protocol.ModelState, "POST", path_of("edge", "v1", "models", name, verb))

    async def adapters(self) -> adapter_protocol.AdapterList:
        return await self._call(adapter_protocol.AdapterList, "GET", "/edge/v1/adapters")

    async def add_adapter(self, name: str, content: bytes, *, base: str | None = None) -> adapter_protocol.AdapterAdded:
        """Raises RequestError where it is no LoRA adapter, or one for another model."""
        body = adapter_protocol.AdapterAdd(name=name, content=content, base=base)
        return await self._call(adapter_protocol.AdapterAdded, "POST", "/edge/v1/adapters", body)

    async def remove_adapter(self, name: str) -> adapter_protocol.AdapterRemoved:
        return await self._call(adapter_protocol.AdapterRemoved, "DELETE", path_of("edge", "v1", "adapters", name))

    # ---- the daemon itself -------------------------------------------------------------------------------------

    async def status(self) -> protocol.Status:
        return await self._call(protocol.Status, "GET", "/edge/v1/status")

    async def events(self) -> AsyncGenerator[protocol.Event, None]:
        """What happens from now on, until the caller leaves or the daemon stops."""
        async with aclosing(self._stream("GET", "/edge/v1/events")) as events:
            async for event in events:
                yield decode(event.data, protocol.Event)

    async def engine(self) -> engine_protocol.EngineReport:
        """What the engines are doing now, and for whom."""
        return await self._call(engine_protocol.EngineReport, "GET", "/edge/v1/engine")

    async def requests(self) -> protocol.RequestList:
        return await self._call(protocol.RequestList, "GET", "/edge/v1/requests")

    async def cancel(self, request_id: str) -> None:
        await self._read("DELETE", path_of("edge", "v1", "requests", request_id))

    async def probe(self) -> protocol.SealProof:
        """Have the sealed processes try every way out on themselves."""
        return await self._call(protocol.SealProof, "POST", "/edge/v1/probe")

    async def backup(self, name: str | None = None) -> protocol.BackupReply:
        """Have the daemon write a backup called ``name`` (None: named by the time) below ``backups`` in its home."""
        return await self._call(protocol.BackupReply, "POST", "/edge/v1/backup", protocol.BackupRequest(name=name))

    async def metrics(self) -> str:
        """Prometheus text format 0.0.4."""
        return (await self._read("GET", "/metrics")).decode("utf-8")


def _blocking(
    method: Callable[Concatenate[Client, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[SyncClient, _P], _T]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self.run(method(self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Client, _P], AsyncGenerator[_T, None]],
) -> Callable[Concatenate[SyncClient, _P], Generator[_T, None, None]]:
    @functools.wraps(method)
    def iterate(self: SyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> Generator[_T, None, None]:
        stream = method(self.client, *args, **kwargs)

        async def step() -> _T:
            return await anext(stream)

        try:
            while True:
                try:
                    value = self.run(step())
                except StopAsyncIteration:
                    return
                yield value
        finally:
            # A client that was closed first has ended the stream. Where an exit from the process broke in, the step
            # still runs: closing the client ends it.
            if not self.closed and not (isinstance(stream, AsyncGeneratorType) and stream.ag_running):
                self.run(stream.aclose())

    return iterate


class SyncClient:
    """The calls of :class:`Client`, each of which blocks; not for use where an event loop runs, nor by two threads.

    Ctrl-C during a call closes its connection and raises KeyboardInterrupt.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.closed = False
        self._runner = asyncio.Runner()

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(call)

    def close(self) -> None:
        self.closed = True
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    ask = _blocking(Client.ask)
    ask_stream = _iterating(Client.ask_stream)
    search = _blocking(Client.search)
    tune_search = _blocking(Client.tune_search)
    add_document = _blocking(Client.add_document)
    check_documents = _blocking(Client.check_documents)
    documents = _blocking(Client.documents)
    document_text = _blocking(Client.document_text)
    remove_document = _blocking(Client.remove_document)
    index_report = _blocking(Client.index_report)
    compact_index = _blocking(Client.compact_index)
    export_index = _iterating(Client.export_index)
    mount_index = _blocking(Client.mount_index)
    mounts = _blocking(Client.mounts)
    unmount_index = _blocking(Client.unmount_index)
    reembed_index = _blocking(Client.reembed_index)
    score = _blocking(Client.score)
    feedback = _blocking(Client.feedback)
    chat = _blocking(Client.chat)
    chat_stream = _iterating(Client.chat_stream)
    complete = _blocking(Client.complete)
    complete_stream = _iterating(Client.complete_stream)
    embed = _blocking(Client.embed)
    models = _blocking(Client.models)
    model_states = _blocking(Client.model_states)
    load_model = _blocking(Client.load_model)
    unload_model = _blocking(Client.unload_model)
    pin_model = _blocking(Client.pin_model)
    unpin_model = _blocking(Client.unpin_model)
    adapters = _blocking(Client.adapters)
    add_adapter = _blocking(Client.add_adapter)
    remove_adapter = _blocking(Client.remove_adapter)
    status = _blocking(Client.status)
    events = _iterating(Client.events)
    engine = _blocking(Client.engine)
    requests = _blocking(Client.requests)
    cancel = _blocking(Client.cancel)
    probe = _blocking(Client.probe)
    backup = _blocking(Client.backup)
    metrics = _blocking(Client.metrics)


def connect_sync(socket: Path, *, silence_s: float | None = None) -> SyncClient:
    """A blocking client; it connects at each call, so a daemon that is not there is noticed then."""
    return SyncClient(Client(socket, silence_s=silence_s))

"""The engine and the embedder as the daemon uses them: admission, retries and cancelling around two children."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import struct
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from edge_runtime.config import Config
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.events import Events
from edge_runtime.engine.messages import (
    Cancel,
    Done,
    Embed,
    Load,
    Params,
    Probe,
    Probed,
    Purge,
    Purged,
    Ready,
    Score,
    Scored,
    Submit,
    Token,
    Vectors,
)
from edge_runtime.errors import BusyError, EdgeError, EngineError, ModelFileError
from models.catalog import Chat, Entry, Kind
from models.errors import DamagedFileError, ModelError, NotInstalledError
from models.store import Store

SLOTS = 1  # requests that the engine works on at once
WAIT_SECONDS = 60.0  # a request waits so long for a child that is starting
PROBE_SECONDS = 60.0
EMBED_TEXTS = 64  # texts in one message to the embedder
FILE_TEMPLATE = "file"  # a catalogue entry's word for the template inside the weights
_FLOAT_BYTES = 4
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFiles:
    """Finds the two configured models: their files in the store, their rules in the catalogue.

    Every method raises :class:`ModelFileError`, which says what is wrong and which command or field puts it right.
    """

    config: Config
    root: Path

    def writer(self) -> Load:
        name = self.config.models.writer
        self.chat()
        path = self._look(name, lambda store: store.writer_path(name))
        return Load(path=str(path), name=name, context=self.config.engine.context, threads=self._threads())

    def chat(self) -> Chat:
        """How the writer is prompted."""
        name = self.config.models.writer
        chat = self._entry(name, "writer").chat
        if chat is None:
            raise ModelFileError(f"the catalogue entry of {name} has no [chat]; models/README.md shows one")
        if chat.template != FILE_TEMPLATE:
            # Imported late: Jinja would make every start slower, and few entries bring a template.
            from edge_runtime.engine import templates  # noqa: PLC0415

            try:
                templates.check(chat.template)
            except ModelFileError as error:
                raise ModelFileError(f"chat.template in the catalogue entry of {name}: {error}") from error
        return chat

    def embedder(self) -> Load:
        name = self.config.models.embedder
        prompt = self._entry(name, "embedder").prompt
        if prompt is None or prompt.pooling == "score":
            raise ModelFileError(f"prompt.pooling in the catalogue entry of {name} must be mean or cls")
        files = self._look(name, lambda store: store.get(name).files)
        try:
            weights, tokenizer = files["weights"], files["tokenizer"]
        except KeyError as missing:
            raise ModelFileError(f"{name} has no {missing} file; choose another models.embedder") from None
        return Load(
            path=str(weights),
            name=name,
            tokenizer=str(tokenizer),
            threads=self._threads(),
            pooling=prompt.pooling,
            window=prompt.window,
            query=prompt.query,
            passage=prompt.passage,
        )

    def _entry(self, name: str, kind: Kind) -> Entry:
        entry = self._look(name, lambda store: store.entry(name))
        if entry.kind != kind:
            raise ModelFileError(
                f"models.{kind} is {name}, and kind in its catalogue entry is {entry.kind}: choose another "
                "from: edge model list"
            )
        return entry

    def _look(self, name: str, ask: Callable[[Store], _T]) -> _T:
        try:
            return ask(Store(self.root, self.config.models.quota_bytes))
        except ModelError as error:
            absent = isinstance(error, NotInstalledError | DamagedFileError) and "edge model pull" not in str(error)
            raise ModelFileError(f"{error}; fetch it with: edge model pull {name}" if absent else str(error)) from error

    def _threads(self) -> int:
        return self.config.engine.threads or len(os.sched_getaffinity(0))


class Engine:
    """The writer: one prompt in, tokens out. Requests take turns in the order of their arrival."""

    def __init__(self, child: Child, *, queue: int) -> None:
        self.child = child
        self.running = 0
        self._queue = queue
        self._turn = asyncio.Semaphore(SLOTS)
        self._present = 0

    @property
    def waiting(self) -> int:
        return self._present - self.running

    @property
    def ready(self) -> Ready | None:
        return self.child.ready

    @contextlib.asynccontextmanager
    async def turn(self, on_start: Callable[[], None] | None = None) -> AsyncIterator[Ready]:
        """Wait for a turn, and for a child that is starting.

        Raises:
            BusyError: as many requests wait already as ``engine.queue`` allows.
            EngineError: no engine within a minute.
        """
        if self._present >= SLOTS + self._queue:
            raise BusyError(f"{self.waiting} requests are waiting already; try again in some seconds")
        self._present += 1
        try:
            async with self._turn:
                ready = await self.child.wait_ready(WAIT_SECONDS)
                self.running += 1
                if on_start is not None:
                    on_start()
                try:
                    yield ready
                finally:
                    self.running -= 1
        finally:
            self._present -= 1

    async def generate(
        self,
        prompt: str,
        params: Params,
        *,
        add_bos: bool = True,
        on_start: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Token | Done, None]:
        """Tokens, and :class:`Done` last; leaving the generator early cancels. ``prompt`` went through a template.

        Raises:
            BusyError: the queue is full.
            EngineError: the engine died, or is not there.
            ContextLengthError: the prompt does not fit.
        """
        key = uuid.uuid4().hex
        async with self.turn(on_start), self.child.exchange(key) as replies:
            finished = False
            self.child.send(Submit(id=key, prompt=prompt, params=params, add_bos=add_bos))
            try:
                while not finished:
                    reply = await replies.get()
                    # A request that failed needs no cancelling either.
                    finished = isinstance(reply, Done | EdgeError)
                    match reply:
                        case Token() | Done():
                            yield reply
                        case EdgeError():
                            raise reply
                        case other:
                            raise EngineError(
                                f"the engine answered with {type(other).__name__}; send the request again"
                            )
            finally:
                if not finished:
                    self.cancel(key)

    async def score(self, prompt: str, choices: Sequence[str]) -> Scored:
        """Log-probability of each choice after ``prompt``. Raises as :meth:`generate`."""
        key = uuid.uuid4().hex
        async with self.turn():
            reply = await self.child.call(key, Score(id=key, prompt=prompt, choices=list(choices)))
        if not isinstance(reply, Scored):
            raise EngineError("the engine did not score; send the request again")
        return reply

    def cancel(self, key: str) -> None:
        with contextlib.suppress(EngineError):
            self.child.send(Cancel(id=key))

    async def purge(self) -> bool:
        """Forget every cached prompt; an engine that is not there has none. Whether one was there to ask."""
        key = uuid.uuid4().hex
        try:
            return isinstance(await self.child.call(key, Purge(id=key)), Purged)
        except EngineError:
            return False

    async def probe(self) -> list[tuple[str, bool, str]]:
        return await probe(self.child)


class Embedder:
    """Texts in, unit vectors out. Embedding twice is harmless, so a request outlives one death of the child."""

    def __init__(self, child: Child) -> None:
        self.child = child

    @property
    def ready(self) -> Ready | None:
        return self.child.ready

    async def embed(
        self, texts: Sequence[str], *, pool: bool = True, kind: Literal["query", "passage"] = "passage"
    ) -> Vectors:
        """One unit vector a text (``pool``), or one a window; see :class:`Vectors` for the shapes.

        Some models want to be told what a text is: ``kind``.

        Raises:
            EngineError: no embedder within a minute.
        """
        parts = [
            await self._embed(Embed(id="", texts=list(texts[start : start + EMBED_TEXTS]), pool=pool, kind=kind))
            for start in range(0, max(len(texts), 1), EMBED_TEXTS)
        ]
        if len(parts) == 1:
            return parts[0]
        return Vectors(
            id=parts[0].id,
            width=parts[0].width,
            counts=[count for part in parts for count in part.counts],
            spans=[span for part in parts for span in part.spans],
            data=b"".join(part.data for part in parts),
            tokens=sum(part.tokens for part in parts),
        )

    async def _embed(self, request: Embed) -> Vectors:
        try:
            return await self._embed_once(request)
        except EngineError:
            return await self._embed_once(request)

    async def _embed_once(self, request: Embed) -> Vectors:
        key = uuid.uuid4().hex
        await self.child.wait_ready(WAIT_SECONDS)
        try:
            reply = await self.child.call(key, msgspec.structs.replace(request, id=key))
        except asyncio.CancelledError:
            with contextlib.suppress(EngineError):
                self.child.send(Cancel(id=key))
            raise
        if not isinstance(reply, Vectors):
            raise EngineError("the embedder did not answer with vectors; send the request again")
        return reply

    async def probe(self) -> list[tuple[str, bool, str]]:
        return await probe(self.child)


async def probe(child: Child) -> list[tuple[str, bool, str]]:
    """Have a child try the ways out of the seal: route, refused, detail."""
    key = uuid.uuid4().hex
    async with asyncio.timeout(PROBE_SECONDS):
        await child.wait_ready(WAIT_SECONDS)
        reply = await child.call(key, Probe(id=key))
    if not isinstance(reply, Probed):
        raise EngineError(f"the {child.name} did not probe; ask again")
    return reply.attempts


def make_children(config: Config, root: Path, events: Events, *, sealed: bool) -> tuple[Engine, Embedder]:
    """Both children, not started yet; ``root`` is the model store, the one place that they may read."""
    files = ModelFiles(config, root)
    reads = ["--read", str(root.resolve())]
    engine = Child(
        "engine",
        "edge_runtime.engine",
        options=[*reads, *([] if sealed else ["--unsealed"])],
        find=files.writer,
        events=events,
    )
    embedder = Child(
        "embedder",
        "edge_runtime.embedding",
        options=[*reads, *([] if sealed else ["--unsealed"])],
        find=files.embedder,
        events=events,
    )
    return Engine(engine, queue=config.engine.queue), Embedder(embedder)


def rows(vectors: Vectors) -> list[tuple[float, ...]]:
    """Each row of ``vectors`` as numbers."""
    size = vectors.width * _FLOAT_BYTES
    layout = struct.Struct(f"<{vectors.width}f")
    return [layout.unpack_from(vectors.data, start) for start in range(0, len(vectors.data), size)]

"""The children: what each is to load, how each is started, and the embedder as the daemon uses it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from edge_runtime import machine
from edge_runtime.config import Config
from edge_runtime.daemon.admission import Limits
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.engine import WAIT_SECONDS, Engine, probe
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.reranker import Reranker
from edge_runtime.daemon.text_queue import TextQueue
from edge_runtime.engine.messages import Cancel, Embed, Load, Ready, Vectors
from edge_runtime.errors import EngineError, ModelFileError
from edge_runtime.turn import Turn
from models.catalog import Chat, Entry, Kind
from models.errors import DamagedFileError, ModelError, NotInstalledError
from models.store import Store

EMBED_TEXTS = 64  # texts in one message to the embedder
FILE_TEMPLATE = "file"  # a catalogue entry's word for the template inside the weights
_FLOAT_BYTES = 4
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFiles:
    """Finds models: their files in the store, their rules in the catalogue. No name: the configured one.

    Every method raises :class:`ModelFileError`, which says what is wrong and which command or field puts it right.
    """

    config: Config
    root: Path
    snapshots: Path | None = None  # where a writer keeps prompts on disk; None: nowhere

    def writer(self, name: str = "") -> Load:
        name = name or self.config.models.writer
        self.chat(name)
        path = self._look(name, lambda store: store.writer_path(name))
        return Load(
            path=str(path),
            name=name,
            context=self.config.engine.context,
            threads=self._threads(),
            slots=self.config.engine.slots,
            itl_target_ms=dataclasses.asdict(self.config.engine.itl_target_ms),  # type: ignore[arg-type]
            cache_bytes=self.config.engine.cache_bytes,
            digest=path.name,  # the store names a file by its digest
            snapshots=str(self.snapshots.resolve()) if self.snapshots is not None else "",
            snapshot_bytes=self.config.engine.snapshot_bytes,
        )

    def chat(self, name: str = "") -> Chat:
        """How the writer is prompted."""
        name = name or self.config.models.writer
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

    def embedder(self, name: str = "") -> Load:
        name = name or self.config.models.embedder
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

    def reranker(self) -> Load:
        name = self.config.models.reranker
        prompt = self._entry(name, "reranker").prompt
        if prompt is None or prompt.pooling != "score":
            raise ModelFileError(f"prompt.pooling in the catalogue entry of {name} must be score")
        files = self._look(name, lambda store: store.get(name).files)
        try:
            weights, tokenizer = files["weights"], files["tokenizer"]
        except KeyError as missing:
            raise ModelFileError(f"{name} has no {missing} file; choose another models.reranker") from None
        return Load(
            path=str(weights),
            name=name,
            tokenizer=str(tokenizer),
            threads=self._threads(),
            pooling=prompt.pooling,
            window=prompt.window,
        )

    def _entry(self, name: str, kind: Kind) -> Entry:
        entry = self._look(name, lambda store: store.entry(name))
        if entry.kind != kind:
            configured = getattr(self.config.models, kind)
            asked = f"models.{kind} is {name}" if name == configured else f"{name} is asked for as a {kind}"
            raise ModelFileError(
                f"{asked}, and kind in its catalogue entry is {entry.kind}: choose another from: edge model list"
            )
        return entry

    def _look(self, name: str, ask: Callable[[Store], _T]) -> _T:
        try:
            return ask(Store(self.root, self.config.models.quota_bytes))
        except ModelError as error:
            absent = isinstance(error, NotInstalledError | DamagedFileError) and "edge model pull" not in str(error)
            raise ModelFileError(f"{error}; fetch it with: edge model pull {name}" if absent else str(error)) from error

    def _threads(self) -> int:
        return self.config.engine.threads or machine.cores()


class Embedder:
    """Texts in, unit vectors out. Embedding twice is harmless, so a request outlives one death of the child."""

    def __init__(self, child: Child, queue: TextQueue) -> None:
        self.child = child
        self.queue = queue

    @property
    def ready(self) -> Ready | None:
        return self.child.ready

    @contextlib.contextmanager
    def admit(self, user: str, texts: Sequence[str], *, privileged: bool) -> Iterator[None]:
        """A place in front of the embedder for what a client wants embedded, while the block lasts.

        Raises:
            BusyError: too many are there, or too many of this user; with when to come back.
        """
        order = self.queue.enter(user, texts, privileged=privileged, now=time.monotonic())
        served = False
        try:
            yield
            served = True
        finally:
            self.queue.leave(order, now=time.monotonic(), served=served)

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


def make_children(
    config: Config, root: Path, events: Events, *, snapshots: Path, sealed: bool, turn: Turn
) -> tuple[Engine, Embedder]:
    """The embedder and the configured writer, not started yet; as :func:`make_engine`."""
    engine = make_engine("", config, root, events, snapshots=snapshots, sealed=sealed, turn=turn)
    return engine, make_embedder("", config, root, events, sealed=sealed, turn=turn)


def make_embedder(name: str, config: Config, root: Path, events: Events, *, sealed: bool, turn: Turn) -> Embedder:
    """The embedder ``name`` (empty: the configured one), not started yet; as :func:`make_engine`."""
    files = ModelFiles(config, root)
    child = Child(
        "embedder",
        "edge_runtime.embedding",
        options=["--read", str(root.resolve()), *([] if sealed else ["--unsealed"])],
        find=lambda: files.embedder(name),
        events=events,
        turn=turn,
    )
    return Embedder(child, TextQueue(config.engine.embeddings, config.engine.per_user, "requests for embeddings"))


def make_reranker(config: Config, root: Path, events: Events, *, sealed: bool, turn: Turn) -> Reranker | None:
    """The configured cross-encoder, not started yet; None where none is configured."""
    if not config.models.reranker:
        return None
    child = Child(
        "reranker",
        "edge_runtime.embedding",
        options=["--read", str(root.resolve()), *([] if sealed else ["--unsealed"])],
        find=ModelFiles(config, root).reranker,
        events=events,
        turn=turn,
    )
    return Reranker(child)


def make_engine(
    name: str, config: Config, root: Path, events: Events, *, snapshots: Path, sealed: bool, turn: Turn
) -> Engine:
    """An engine for the writer ``name`` (empty: the configured one), not started yet.

    ``root`` is the model store, the one place that children may read. Engines alone may write, and only below
    ``snapshots``. All children compute in turns: ``turn``.
    """
    files = ModelFiles(config, root, snapshots)
    child = Child(
        "engine",
        "edge_runtime.engine",
        options=[
            *("--read", str(root.resolve())),
            *("--write", str(snapshots.resolve())),
            *([] if sealed else ["--unsealed"]),
        ],
        find=lambda: files.writer(name),
        events=events,
        silence_seconds=config.engine.silence_seconds,
        turn=turn,
    )
    return Engine(child, limits(config))


def limits(config: Config) -> Limits:
    """How many requests may run and wait in front of each engine."""
    engine = config.engine
    return Limits(slots=engine.slots, queue=engine.queue, per_user=engine.per_user)


def rows(vectors: Vectors) -> list[tuple[float, ...]]:
    """Each row of ``vectors`` as numbers."""
    size = vectors.width * _FLOAT_BYTES
    layout = struct.Struct(f"<{vectors.width}f")
    return [layout.unpack_from(vectors.data, start) for start in range(0, len(vectors.data), size)]

"""Knowledge in the daemon: the index, opened once the embedder is known, and honest about why it is not there.

The rest of the daemon starts and goes on without it. What touches the disk runs in threads. Knowledge, NumPy and SQLite
are imported while the children load: together they take a fifth of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edge_runtime.config import Config
from edge_runtime.daemon import logs, scan
from edge_runtime.daemon.children import Embedder
from edge_runtime.daemon.peers import Peer, Uid
from edge_runtime.daemon.questions import Questions
from edge_runtime.daemon.succession import Succession, identify
from edge_runtime.errors import EdgeError, EngineError, StorageError
from edge_runtime.paths import Paths

if TYPE_CHECKING:
    from edge_runtime.daemon.journal import Journal
    from edge_runtime.daemon.vectors import DocumentEmbedder
    from edge_runtime.knowledge.collections import Reader
    from edge_runtime.knowledge.cutting import Cutter
    from edge_runtime.knowledge.documents import Limits
    from edge_runtime.knowledge.index import Index
    from edge_runtime.knowledge.ingest import Intake
    from edge_runtime.knowledge.mounts import Mounts

_OPENING = "the index is being opened"
OPEN_SECONDS = 30.0  # a request waits so long for the index at the start
_CLOSE_SECONDS = 5.0
_T = TypeVar("_T")


class Shelf:
    """Everything that an open index serves."""

    def __init__(
        self,
        index: Index,
        journal: Journal,
        *,
        embedder: DocumentEmbedder,
        mounts: Mounts,
        cutter: Cutter,
        intake: Intake,
    ) -> None:
        self.index = index
        self.journal = journal
        self.embedder = embedder
        self.mounts = mounts
        self.cutter = cutter
        self.intake = intake
        self.exporting = asyncio.Lock()  # one after the other: each may take much disk
        self.storing = asyncio.Lock()  # who replaces which document is settled one by one

    def names(self) -> frozenset[str]:
        """Of the box's own collections."""
        return frozenset(one.name for one in self.index.collections())


class Library:
    """Holds the :class:`Shelf`, or what keeps it from being opened."""

    def __init__(
        self, paths: Paths, config: Config, embedder: Embedder, succession: Succession, *, sealed: bool = True
    ) -> None:
        self.trouble = _OPENING
        self.succession = succession
        self._sealed = sealed
        self._paths = paths
        self._config = config
        self._embedder = embedder
        self.questions = Questions(config.knowledge.questions, config.engine.per_user)
        self._shelf: Shelf | None = None
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._settled = asyncio.Event()

    async def opened(self) -> Shelf:
        """The shelf; a question that comes while the index is being opened waits for it. Raises as :attr:`shelf`."""
        if self._embedder.child.state != "failed":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_SECONDS):
                    await self._settled.wait()
        return self.shelf

    async def open(self) -> None:
        """Wait for the embedder, which knows how wide a vector is, and open the index; a damaged one stays as it is."""
        loading = asyncio.ensure_future(asyncio.to_thread(_warm))
        width = (await self._embedder.child.come()).width
        await loading
        loaded = self._embedder.child.loaded
        tokenizer = Path(loaded.tokenizer if loaded else "")
        model = identify(loaded) if loaded else ""
        try:
            self._shelf = await asyncio.to_thread(self._open, model, width, tokenizer)
        except EdgeError as error:
            self.trouble = error.message
            logs.error("index.broken", reason=error.message)
        else:
            self.trouble = ""
            await self.succession.begin(self._shelf.index, self._shelf.embedder, name=model, width=width)
        self._settled.set()
        if self._shelf is not None:
            await asyncio.to_thread(self._shelf.mounts.load, embedder=model, taken=self._shelf.names)

    def _open(self, model: str, width: int, tokenizer: Path) -> Shelf:
        from edge_runtime.daemon.journal import Journal  # noqa: PLC0415
        from edge_runtime.daemon.vectors import DocumentEmbedder  # noqa: PLC0415
        from edge_runtime.knowledge.cutting import Cutter  # noqa: PLC0415
        from edge_runtime.knowledge.index import Index  # noqa: PLC0415
        from edge_runtime.knowledge.ingest import Intake  # noqa: PLC0415
        from edge_runtime.knowledge.mounts import Mounts  # noqa: PLC0415

        journal = Journal(self._paths.journal)
        index = Index.open(self._paths.index, embedder=model, width=width)
        scan.attach(index, self._paths.scan)
        embedder = DocumentEmbedder(self._embedder)
        cutter = Cutter(tokenizer, unsealed_ok=not self._sealed)
        return Shelf(
            index,
            journal,
            embedder=embedder,
            mounts=Mounts(self._paths.mounts),
            cutter=cutter,
            intake=Intake(index, embedder, self._limits(), read=cutter.cut),
        )

    def _limits(self) -> Limits:
        from edge_runtime.knowledge.documents import Limits  # noqa: PLC0415

        settings = self._config.knowledge
        return Limits(
            memory_bytes=settings.parse_memory_bytes,
            seconds=settings.parse_seconds,
            document_bytes=settings.document_bytes,
            text_chars=settings.text_chars,
            chunk_tokens=settings.chunk_tokens,
            chunk_overlap=settings.chunk_overlap,
            unsealed_ok=not self._sealed,
        )

    @property
    def shelf(self) -> Shelf:
        """
        Raises:
            EngineError: it is not open yet.
            StorageError: it cannot be opened; the message says what to do.
        """
        if self._shelf is not None:
            return self._shelf
        if self.trouble == _OPENING:
            raise EngineError("the index is not open yet; try again in some seconds")
        raise StorageError(self.trouble)

    @property
    def mounts(self) -> Mounts:
        """Raises as :attr:`shelf`."""
        return self.shelf.mounts

    @property
    def note(self) -> str:
        """What the owner should know about an index that is open; empty where there is nothing."""
        return self.succession.note

    def embedder_of(self, index: Index) -> DocumentEmbedder | None:
        """What embeds queries to ``index``; None: nothing on this box, and only words can be searched."""
        return self.succession.embedder_of(index.embedder)

    async def counts(self) -> tuple[int, int]:
        """Documents and chunks; zeros without an index."""
        if self._shelf is None:
            return 0, 0
        try:
            stats = await asyncio.to_thread(self._shelf.index.stats)
        except EdgeError as error:
            self.trouble = error.message
            return 0, 0
        return stats.documents, stats.chunks

    @property
    def scan(self) -> tuple[int, int]:
        """Bytes and vectors of the coarse copy; zeros without one."""
        coarse = self._shelf.index.coarse if self._shelf is not None else None
        return (0, 0) if coarse is None else (coarse.bytes, coarse.rows)

    async def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do ``work`` to its end even when whoever asked for it leaves: nothing is left half purged."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        await self.succession.close()
        if self._unfinished:
            await asyncio.wait(self._unfinished, timeout=_CLOSE_SECONDS)
        if self._shelf is not None:
            self._shelf.cutter.close()
            if (coarse := self._shelf.index.coarse) is not None:
                coarse.close()
            self._shelf.index.close()
            self._shelf.journal.close()
            self._shelf = None


def reader_of(peer: Peer, *, administers: bool) -> Reader | None:
    """The peer as collections know readers; None reads everything."""
    from edge_runtime.knowledge.collections import Reader  # noqa: PLC0415

    match peer:
        case _ if administers:
            return None
        case Uid(uid=uid, groups=groups):
            return Reader(uid, groups)
        case _:
            return Reader(-1)  # the token is nobody's: it reads what has no readers of its own


def _warm() -> None:
    from edge_runtime.daemon import journal, vectors  # noqa: F401, PLC0415
    from edge_runtime.knowledge import asking, cutting, index, ingest, mounts, reembedding  # noqa: F401, PLC0415

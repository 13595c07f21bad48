"""From one embedder to the next: the former one answers for the index that it made, while that is embedded anew.

Where the former embedder is not on the box any more, only the words of that index can be searched meanwhile. Documents
are embedded in small requests, before each of which a question goes first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.daemon import logs
from edge_runtime.daemon.events import Events
from edge_runtime.engine.messages import Load
from edge_runtime.errors import EdgeError, EngineError, ModelFileError, RefusedError

if TYPE_CHECKING:
    from edge_runtime.daemon.children import Embedder
    from edge_runtime.daemon.vectors import DocumentEmbedder
    from edge_runtime.knowledge.index import Index

_AGAIN_SECONDS = 2.0  # after the embedder was not there
_LINGER_SECONDS = 10.0  # the former embedder answers those who asked before the new vectors came
_TOLD_SECONDS = 1.0  # between two events about the progress


class Succession:
    """``find`` says how an embedder of the catalogue is loaded, ``make`` makes one that is not started yet."""

    def __init__(
        self, path: Path, events: Events, *, find: Callable[[str], Load], make: Callable[[str], Embedder]
    ) -> None:
        self.former: Embedder | None = None  # started, while the index is its
        self.name = ""  # of the present embedder
        self.progress: tuple[int, int] | None = None  # documents embedded anew, of so many; None: nothing is
        self.trouble = ""  # why embedding anew stopped
        self._path = path
        self._events = events
        self._find = find
        self._make = make
        self._index: Index | None = None
        self._embedder: DocumentEmbedder | None = None
        self._documents: DocumentEmbedder | None = None  # the former one's
        self._width = 0
        self._answering: asyncio.Task[None] | None = None  # the former embedder's life
        self._renewing: asyncio.Task[None] | None = None

    async def begin(self, index: Index, embedder: DocumentEmbedder, *, name: str, width: int) -> None:
        """The box now embeds with ``name``: look after an index that was made with another, and go on where embedding
        anew was interrupted."""
        from edge_runtime.knowledge import reembedding  # noqa: PLC0415  (with the index)

        self._index, self._embedder, self.name, self._width = index, embedder, name, width
        if not index.stale:
            await asyncio.to_thread(reembedding.discard, self._path)
            return
        logs.warn("index.stale", held=index.embedder, wanted=name)
        await self._call_back(index.embedder)
        if self._path.exists():
            self._launch()

    async def _call_back(self, held: str) -> None:
        """Start the former embedder, if the box still has the very one."""
        from edge_runtime.daemon.vectors import DocumentEmbedder  # noqa: PLC0415

        name = held.partition("@")[0]
        try:
            load = await asyncio.to_thread(self._find, name)
        except ModelFileError:
            return
        if identify(load) != held:
            return
        self.former = self._make(name)
        self._documents = DocumentEmbedder(self.former)
        self._answering = asyncio.ensure_future(self.former.child.supervise())

    def embedder_of(self, held: str) -> DocumentEmbedder | None:
        """What embeds queries for vectors of the embedder ``held``; None: nothing on this box does."""
        if held == self.name:
            return self._embedder
        return self._documents if self._index is not None and held == self._index.embedder else None

    @property
    def note(self) -> str:
        """What the owner should know about an index of another embedder; empty where there is nothing."""
        index = self._index
        if index is None or not index.stale:
            return ""
        what = f"the index holds vectors of {index.embedder}, and the embedder is now {self.name}"
        if self.trouble:
            return f"{what}; embedding it anew stopped: {self.trouble}; go on with: edge index reembed"
        if self.progress is not None:
            done, total = self.progress
            return f"{what}; it is being embedded anew, {done} of {total} documents; add documents when that is done"
        meanwhile = "" if self._documents is not None else ", and only its words are searched"
        return f"{what}{meanwhile}; run edge index reembed, or choose the former embedder in edge.toml"

    def start(self) -> None:
        """Embed the index anew in the background; does nothing where that is on its way.

        Raises:
            RefusedError: it holds this embedder's vectors already.
        """
        if self._index is None or not self._index.stale:
            raise RefusedError(f"the index holds vectors of {self.name} already: there is nothing to do")
        if self.progress is None:
            self._launch()

    def _launch(self) -> None:
        self.trouble = ""
        self.progress = (0, 0)
        self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        from edge_runtime.knowledge.reembedding import Reembedding  # noqa: PLC0415

        index, embedder = self._index, self._embedder
        if index is None or embedder is None:
            return
        work = Reembedding(index, embedder, self._path, name=self.name, width=self._width)
        told = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal told
            self.progress = (done, total)
            if time.monotonic() - told >= _TOLD_SECONDS or done == total:
                told = time.monotonic()
                self._events.publish("index.reembedding", documents=done, total=total)

        try:
            while True:
                try:
                    await work.run(tell)
                    break
                except EngineError as error:
                    logs.warn("index.reembedding.waits", reason=error.message)
                    await asyncio.sleep(_AGAIN_SECONDS)
        except EdgeError as error:
            self.trouble = error.message
            logs.error("index.reembedding.stopped", reason=error.message)
            self._events.publish("index.reembedding.stopped", reason=error.message)
        else:
            logs.info("index.reembedded", embedder=self.name)
            self._events.publish("index.reembedded", embedder=self.name)
            self.progress = None
            await asyncio.sleep(_LINGER_SECONDS)
            if self._answering is not None:
                self._answering.cancel()
            self.former = self._documents = None
        finally:
            self.progress = None

    async def close(self) -> None:
        """Stop what runs; embedding anew goes on at the next start."""
        running = [task for task in (self._renewing, self._answering) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def identify(load: Load) -> str:
    """What stored vectors depend on. The store names a file by its digest: other weights are another model."""
    pooling = "" if load.pooling == "mean" else f" {load.pooling}"
    passage = f" {load.passage!r}" if load.passage else ""
    return f"{load.name}@{Path(load.path).name}{pooling}{passage}"

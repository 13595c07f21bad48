"""The reranker as the daemon uses it: a query and passages in, probabilities out, within a time."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence

from edge_runtime.daemon import logs
from edge_runtime.daemon.child import Child
from edge_runtime.engine.messages import Cancel, Ready, Rerank, Reranked
from edge_runtime.errors import EdgeError, EngineError

_GRACE = 0.25  # seconds beyond its time after which the child is not waited for


class Reranker:
    """A cross-encoder in a child of its own: one that dies or is slow costs the reranking, not the search."""

    def __init__(self, child: Child) -> None:
        self.child = child

    @property
    def ready(self) -> Ready | None:
        return self.child.ready

    async def judge(self, query: str, texts: Sequence[str], *, milliseconds: float) -> list[float]:
        """How probable it is that each of the first texts answers ``query``; those for which there was time."""
        if self.child.ready is None or not texts:
            return []
        key = uuid.uuid4().hex
        request = Rerank(id=key, query=query, texts=list(texts), milliseconds=milliseconds)
        try:
            async with asyncio.timeout(milliseconds / 1000 + _GRACE):
                reply = await self.child.call(key, request)
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(EngineError):
                self.child.send(Cancel(id=key))
            if isinstance(error, asyncio.CancelledError):
                raise
            return []
        except EdgeError as error:
            logs.warn("rerank.failed", reason=error.message)
            return []
        return reply.probabilities if isinstance(reply, Reranked) else []

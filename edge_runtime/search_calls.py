"""The client's calls that search, and that fit how it is searched."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.calls import Calls


class SearchCalls(Calls):
    """``/edge/v1/search``."""

    async def search(
        self,
        query: str,
        *,
        collection: str = protocol.DEFAULT_COLLECTION,
        mode: knowledge_protocol.SearchMode = "hybrid",
        k: int = 5,
        filter: knowledge_protocol.Filter | None = None,  # noqa: A002 - the wire's name for it
        fusion: knowledge_protocol.Fusion = "convex",
        weight: float | None = None,
        rerank_ms: int = 0,
        explain: bool = False,
    ) -> knowledge_protocol.SearchReply:
        """The ``k`` best passages; :class:`knowledge_protocol.SearchRequest` says what the rest means."""
        body = knowledge_protocol.SearchRequest(
            query=query,
            collection=collection,
            mode=mode,
            k=k,
            filter=filter,
            fusion=fusion,
            weight=weight,
            rerank_ms=rerank_ms,
            explain=explain,
        )
        return await self._call(knowledge_protocol.SearchReply, "POST", "/edge/v1/search", body)

    async def tune_search(
        self,
        queries: Sequence[knowledge_protocol.LabelledQuery],
        *,
        collection: str = protocol.DEFAULT_COLLECTION,
        keep: bool = True,
    ) -> knowledge_protocol.TuneReply:
        """Fit the weights of hybrid search; ``keep``: from then on the collection is searched with them, if better."""
        body = knowledge_protocol.TuneRequest(queries=list(queries), collection=collection, keep=keep)
        return await self._call(knowledge_protocol.TuneReply, "POST", "/edge/v1/search/tune", body)

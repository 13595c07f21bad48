"""The client's calls about documents and what the index makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.calls import Calls, path_of


class DocumentCalls(Calls):
    """``/edge/v1/documents`` and the sizes of ``/edge/v1/index``."""

    async def add_document(
        self,
        name: str,
        content: bytes,
        *,
        collection: str = protocol.DEFAULT_COLLECTION,
        tags: Sequence[str] = (),
        date: str | None = None,
    ) -> knowledge_protocol.DocumentAdded:
        """Tags and a date that are not given stay as an older document of that name had them.

        Raises:
            DocumentError: the daemon cannot read it (a scan, encrypted, damaged, empty).
        """
        body = knowledge_protocol.DocumentAdd(
            name=name, content=content, collection=collection, tags=list(tags), date=date
        )
        return await self._call(knowledge_protocol.DocumentAdded, "POST", "/edge/v1/documents", body)

    async def check_documents(
        self,
        sums: Sequence[knowledge_protocol.DocumentSum],
        *,
        collection: str = protocol.DEFAULT_COLLECTION,
        tags: Sequence[str] = (),
        date: str | None = None,
    ) -> knowledge_protocol.DocumentList:
        """Those of at most a thousand names that adding would leave as they are."""
        body = knowledge_protocol.DocumentCheck(documents=list(sums), collection=collection, tags=list(tags), date=date)
        return await self._call(knowledge_protocol.DocumentList, "POST", "/edge/v1/documents/check", body)

    async def documents(self) -> knowledge_protocol.DocumentList:
        return await self._call(knowledge_protocol.DocumentList, "GET", "/edge/v1/documents")

    async def document_text(self, document_id: str, start: int, end: int) -> knowledge_protocol.Passage:
        """Characters ``start`` to ``end`` of a document's text."""
        query = urlencode({"start": start, "end": end})
        return await self._call(
            knowledge_protocol.Passage, "GET", f"{path_of('edge', 'v1', 'documents', document_id, 'text')}?{query}"
        )

    async def remove_document(self, document_id: str) -> knowledge_protocol.Removed:
        return await self._call(knowledge_protocol.Removed, "DELETE", path_of("edge", "v1", "documents", document_id))

    async def index_report(self) -> knowledge_protocol.IndexReport:
        """What the index holds and takes."""
        return await self._call(knowledge_protocol.IndexReport, "GET", "/edge/v1/index")

    async def compact_index(self) -> knowledge_protocol.Compacted:
        """Give back to the disk what removed documents have left."""
        return await self._call(knowledge_protocol.Compacted, "POST", "/edge/v1/index/compact")

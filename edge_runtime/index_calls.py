"""The client's calls that carry an index from box to box, and from one embedder to the next."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from edge_runtime import knowledge_protocol
from edge_runtime.calls import Calls, decode, path_of
from edge_runtime.errors import UnreachableError


class IndexCalls(Calls):
    """``/edge/v1/index`` but for its sizes."""

    async def export_index(
        self, name: str, *, collections: Sequence[str] = ()
    ) -> AsyncGenerator[knowledge_protocol.Progress | knowledge_protocol.Exported, None]:
        """Each ``Progress``, and ``Exported`` last: the file is in the folder ``exports`` of the box's home."""
        body = knowledge_protocol.ExportRequest(name=name, collections=list(collections), stream=True)
        async with aclosing(self._stream("POST", "/edge/v1/index/export", body)) as events:
            async for event in events:
                match event.name:
                    case "progress":
                        yield decode(event.data, knowledge_protocol.Progress)
                    case "done":
                        yield decode(event.data, knowledge_protocol.Exported)
                        return
                    case _:
                        pass  # a newer daemon may say more
        raise UnreachableError("the daemon ended the export before it was done; its log says why; then export again")

    async def mount_index(
        self,
        name: str,
        file: str,
        *,
        sha256: str | None = None,
        uids: Sequence[int] = (),
        gids: Sequence[int] = (),
    ) -> knowledge_protocol.Mount:
        """Have ``file`` of the folder ``mounts`` in the box's home answer as ``name``."""
        body = knowledge_protocol.MountRequest(name=name, file=file, sha256=sha256, uids=list(uids), gids=list(gids))
        return await self._call(knowledge_protocol.Mount, "POST", "/edge/v1/index/mounts", body)

    async def mounts(self) -> knowledge_protocol.MountList:
        return await self._call(knowledge_protocol.MountList, "GET", "/edge/v1/index/mounts")

    async def unmount_index(self, name: str) -> knowledge_protocol.Mount:
        """Forget a mount and remove its file."""
        return await self._call(knowledge_protocol.Mount, "DELETE", path_of("edge", "v1", "index", "mounts", name))

    async def reembed_index(self) -> knowledge_protocol.ReembedStarted:
        """Begin to embed the index anew; :meth:`index_report` says how far that is."""
        return await self._call(knowledge_protocol.ReembedStarted, "POST", "/edge/v1/index/reembed")

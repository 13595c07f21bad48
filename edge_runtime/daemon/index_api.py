"""The index itself: what it holds and takes, exports, mounts, embedding anew, and the space of what was removed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from edge_runtime import knowledge_protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.errors import EdgeError, StoppedError

SUFFIX = ".index"

# Handlers import what computes only once the index is open: a thread imports the same meanwhile, and a module that two
# threads import at once can be seen half made.


async def report(call: Call, _: None) -> Reply:
    library = call.daemon.library
    shelf = await library.opened()
    counts = await asyncio.to_thread(shelf.index.report)
    coarse = shelf.index.coarse
    progress = library.succession.progress
    return knowledge_protocol.IndexReport(
        documents=counts.documents,
        chunks=counts.chunks,
        windows=counts.windows,
        sentences=counts.sentences,
        coverage=round(counts.coverage, 6),
        embedder=shelf.index.embedder,
        embedder_now=library.succession.name,
        file_bytes=counts.file_bytes,
        free_bytes=counts.free_bytes,
        scan_bytes=coarse.bytes if coarse is not None else 0,
        scan_ready=await asyncio.to_thread(shelf.index.scanned),
        epoch=counts.epoch,
        reembedded=None if progress is None else round(progress[0] / max(progress[1], 1), 4),
        note=library.note,
    )


async def compact(call: Call, _: None) -> Reply:
    index = (await call.daemon.library.opened()).index
    before, after = await call.daemon.library.finish(asyncio.to_thread(index.compact))
    call.daemon.events.publish("index.compacted", before=before, after=after)
    return knowledge_protocol.Compacted(before_bytes=before, after_bytes=after)


async def export(call: Call, body: knowledge_protocol.ExportRequest) -> Reply:
    """Whoever leaves stops it, and nothing is left behind."""
    shelf = await call.daemon.library.opened()
    from edge_runtime.knowledge import artifact  # noqa: PLC0415

    target = call.daemon.paths.exports / f"{body.name}{SUFFIX}"
    call.running.start()
    async with shelf.exporting:
        stopped = threading.Event()
        done: asyncio.Queue[knowledge_protocol.Progress] = asyncio.Queue()
        tell = _teller(stopped, asyncio.get_running_loop(), done)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        work = asyncio.ensure_future(
            asyncio.to_thread(
                artifact.write,
                shelf.index,
                target,
                body.collections,
                day=today,
                program=version("edge-runtime"),
                told=tell,
            )
        )
        try:
            while body.stream and not work.done():
                with contextlib.suppress(TimeoutError):
                    await call.stream.send(await asyncio.wait_for(done.get(), 0.2), "progress")
            header = await asyncio.shield(work)
        except BaseException:
            stopped.set()
            with contextlib.suppress(EdgeError):
                await asyncio.shield(work)
            raise
    reply = knowledge_protocol.Exported(
        path=str(target),
        size=target.stat().st_size,
        sha256=await asyncio.to_thread(_digest, target),
        documents=header.documents,
        collections=[held.name for held in header.collections],
        embedder=header.embedder,
    )
    call.daemon.events.publish("index.exported", path=reply.path, size=reply.size, documents=reply.documents)
    if not body.stream:
        return reply
    await call.stream.send(reply, "done")
    return await call.stream.end()


def _teller(
    stopped: threading.Event, loop: asyncio.AbstractEventLoop, done: asyncio.Queue[knowledge_protocol.Progress]
) -> Callable[[int, int], None]:
    """What the working thread calls after each document: it passes the progress on, each hundredth once, or stops."""
    last = -1

    def tell(number: int, total: int) -> None:
        nonlocal last
        if stopped.is_set():
            raise StoppedError("the export was stopped; nothing is left of it")
        if (part := 100 * number // max(total, 1)) != last:
            last = part
            loop.call_soon_threadsafe(done.put_nowait, knowledge_protocol.Progress(done=number, total=total))

    return tell


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def mount(call: Call, body: knowledge_protocol.MountRequest) -> Reply:
    daemon = call.daemon
    shelf = await daemon.library.opened()
    call.running.start()
    mounted = await daemon.library.finish(
        asyncio.to_thread(
            lambda: shelf.mounts.mount(
                body.name, body.file, sha256=body.sha256, uids=body.uids, gids=body.gids, taken=shelf.names()
            )
        )
    )
    daemon.events.publish("index.mounted", name=mounted.name, documents=mounted.documents, sha256=mounted.sha256)
    return mounted


async def list_mounts(call: Call, _: None) -> Reply:
    shelf = await call.daemon.library.opened()
    return knowledge_protocol.MountList(mounts=await asyncio.to_thread(shelf.mounts.listing))


async def unmount(call: Call, _: None) -> Reply:
    daemon, name = call.daemon, call.part("name")
    shelf = await daemon.library.opened()
    gone = await daemon.library.finish(asyncio.to_thread(shelf.mounts.unmount, name))
    daemon.events.publish("index.unmounted", name=name)
    return gone


async def reembed(call: Call, _: None) -> Reply:
    library = call.daemon.library
    shelf = await library.opened()
    library.succession.start()
    counts = await asyncio.to_thread(shelf.index.report)
    return knowledge_protocol.ReembedStarted(documents=counts.documents, embedder=library.succession.name)


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/edge/v1/index",
        kind="index",
        action="look",
        summary="What the index holds and takes, and whose vectors it has.",
        handle=report,
        reply=knowledge_protocol.IndexReport,
    ),
    Route(
        method="POST",
        path="/edge/v1/index/compact",
        kind="index.compact",
        action="administer",
        summary="Give back the space of what was removed.",
        handle=compact,
        reply=knowledge_protocol.Compacted,
    ),
    Route(
        method="POST",
        path="/edge/v1/index/export",
        kind="index.export",
        action="administer",
        summary="Write collections to one immutable file; server-sent events where `stream` is set.",
        handle=export,
        body=knowledge_protocol.ExportRequest,
        example=knowledge_protocol.ExportRequest(name="pump-house", collections=["default"]),
        reply=knowledge_protocol.Exported,
        events={"progress": knowledge_protocol.Progress, "done": knowledge_protocol.Exported},
    ),
    Route(
        method="GET",
        path="/edge/v1/index/mounts",
        kind="index.mounts",
        action="administer",
        summary="The indexes that answer beside the box's own, and what is wrong with them.",
        handle=list_mounts,
        reply=knowledge_protocol.MountList,
    ),
    Route(
        method="POST",
        path="/edge/v1/index/mounts",
        kind="index.mount",
        action="administer",
        summary="Have an exported index answer beside the box's own.",
        handle=mount,
        body=knowledge_protocol.MountRequest,
        example=knowledge_protocol.MountRequest(name="vendor", file="vendor.index"),
        reply=knowledge_protocol.Mount,
    ),
    Route(
        method="DELETE",
        path="/edge/v1/index/mounts/{name}",
        kind="index.unmount",
        action="administer",
        summary="Remove a mounted index.",
        handle=unmount,
        reply=knowledge_protocol.Mount,
    ),
    Route(
        method="POST",
        path="/edge/v1/index/reembed",
        kind="index.reembed",
        action="administer",
        summary="Embed the index anew for the present embedder, in the background.",
        handle=reembed,
        reply=knowledge_protocol.ReembedStarted,
    ),
)

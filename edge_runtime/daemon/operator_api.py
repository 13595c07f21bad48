"""Routes for whoever looks after the box: status, events, requests, the seal's proof, backups, health, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib.metadata import version

from aiohttp import web

from edge_runtime import protocol
from edge_runtime.daemon import metrics
from edge_runtime.daemon.backup import write_backup
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.children import Embedder
from edge_runtime.daemon.engine import Engine
from edge_runtime.errors import EngineError
from edge_runtime.seal import attempts


async def status(call: Call, _: None) -> Reply:
    daemon = call.daemon
    engine, embedder = daemon.engine, daemon.embedder
    documents, chunks = await daemon.library.counts()
    return protocol.Status(
        ready=not daemon.trouble,
        version=version("edge-runtime"),
        protocol=protocol.VERSION,
        uptime_s=round(time.monotonic() - daemon.begun, 3),
        home=str(daemon.paths.home),
        socket=str(daemon.paths.socket),
        listen=daemon.listen,
        writer=engine.ready.name if engine.ready else None,
        embedder=embedder.ready.name if embedder.ready else None,
        context=engine.ready.context if engine.ready else daemon.config.engine.context,
        seal=daemon.seal,
        children=[child.status for child in daemon.children],
        documents=documents,
        chunks=chunks,
        requests_running=sum(one.running for one in daemon.engines),
        requests_waiting=sum(one.waiting for one in daemon.engines),
        detail=daemon.trouble,
        memory_bytes=daemon.memory.used,
        memory_budget_bytes=daemon.memory.budget,
        threads=engine.stats.threads if engine.stats is not None else 0,
        note=daemon.library.note,
    )


async def events(call: Call, _: None) -> Reply:
    await call.stream.start()
    async for event in call.daemon.events.subscribe():
        await call.stream.send(event, event.kind)
    if not call.daemon.stopping:
        raise EngineError("this listener fell too far behind and was dropped; subscribe again")
    return await call.stream.end()


async def list_requests(call: Call, _: None) -> Reply:
    return protocol.RequestList(requests=call.daemon.requests.list(call.only_own))


async def cancel_request(call: Call, _: None) -> Reply:
    call.daemon.requests.cancel(call.part("id"), call.only_own)
    return protocol.Acknowledged()


async def probe(call: Call, _: None) -> Reply:
    daemon = call.daemon
    found: list[protocol.SealAttempt] = []
    own = await asyncio.to_thread(attempts, listener=daemon.listener)
    found += [
        protocol.SealAttempt(process="edged", route=one.route, refused=one.refused, detail=one.detail) for one in own
    ]
    processes: dict[str, Engine | Embedder] = {"engine": daemon.engine, "embedder": daemon.embedder}
    with contextlib.ExitStack() as held:
        for name, guest in daemon.pool.guests.items():
            # One that only just loads is not waited for.
            if guest.engine is not daemon.engine and guest.engine.ready is not None:
                held.enter_context(guest.hold())
                processes[f"engine of {name}"] = guest.engine
        for name, child in processes.items():
            found += [
                protocol.SealAttempt(process=name, route=route, refused=refused, detail=detail)
                for route, refused, detail in await child.probe()
            ]
    return protocol.SealProof(attempts=found)


async def backup(call: Call, body: protocol.BackupRequest) -> Reply:
    daemon = call.daemon
    name = body.name or time.strftime("edge-%Y%m%d-%H%M%S", time.gmtime())
    shelf = await daemon.library.opened()
    reply = await asyncio.to_thread(write_backup, daemon.paths, name, index=shelf.index, journal=shelf.journal)
    daemon.events.publish("backup.written", path=reply.path, size=reply.size)
    return reply


async def health(_call: Call, _: None) -> Reply:
    return protocol.Health(status="ok")


async def readiness(call: Call, _: None) -> Reply:
    trouble = call.daemon.trouble
    body = protocol.Health(status="not ready" if trouble else "ok", detail=trouble)
    return call.reply(body, status=503 if trouble else 200)


async def show_metrics(call: Call, _: None) -> Reply:
    return web.Response(body=call.daemon.metrics.render().encode(), headers={"Content-Type": metrics.CONTENT_TYPE})


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/edge/v1/status",
        kind="status",
        action="look",
        summary="What runs, how it is sealed, what is in it, and why it is not ready.",
        handle=status,
        reply=protocol.Status,
    ),
    Route(
        method="GET",
        path="/edge/v1/events",
        kind="events",
        action="administer",
        summary="What happens from now on, as server-sent events; a listener that does not keep up is dropped.",
        handle=events,
        events={"": protocol.Event},
        open_ended=True,
    ),
    Route(
        method="GET",
        path="/edge/v1/requests",
        kind="requests",
        action="ask",
        summary="Requests that run or wait; the owner sees everybody's.",
        handle=list_requests,
        reply=protocol.RequestList,
    ),
    Route(
        method="DELETE",
        path="/edge/v1/requests/{id}",
        kind="requests",
        action="ask",
        summary="Cancel a request; the owner may cancel everybody's.",
        handle=cancel_request,
        reply=protocol.Acknowledged,
    ),
    Route(
        method="POST",
        path="/edge/v1/probe",
        kind="probe",
        action="administer",
        summary="Every sealed process tries each way out on itself.",
        handle=probe,
        reply=protocol.SealProof,
    ),
    Route(
        method="POST",
        path="/edge/v1/backup",
        kind="backup",
        action="administer",
        summary="A consistent copy of what the box knows, as one file below `backups` in its home.",
        handle=backup,
        body=protocol.BackupRequest,
        example=protocol.BackupRequest(name="before-upgrade"),
        reply=protocol.BackupReply,
    ),
    Route(
        method="GET",
        path="/healthz",
        kind="health",
        action="look",
        summary="Whether the process answers at all.",
        handle=health,
        reply=protocol.Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        kind="ready",
        action="look",
        summary="Whether it can do its work: 503 and the reason where it cannot.",
        handle=readiness,
        reply=protocol.Health,
    ),
    Route(
        method="GET",
        path="/metrics",
        kind="metrics",
        action="look",
        summary="Prometheus text format 0.0.4.",
        handle=show_metrics,
    ),
)

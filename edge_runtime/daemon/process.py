"""The daemon's life after the seal: children and listeners up, serve, drain, down."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from edge_runtime.daemon import logs, time_slice
from edge_runtime.daemon.adapters import Adapters
from edge_runtime.daemon.answers import Answers
from edge_runtime.daemon.beginning import Beginning
from edge_runtime.daemon.children import ModelFiles
from edge_runtime.daemon.gauges import add_gauges
from edge_runtime.daemon.library import Library
from edge_runtime.daemon.memory import Memory
from edge_runtime.daemon.metrics import Metrics
from edge_runtime.daemon.notify import Notifier
from edge_runtime.daemon.peers import Household
from edge_runtime.daemon.pool import Pool
from edge_runtime.daemon.routes import ROUTES
from edge_runtime.daemon.scan import keep
from edge_runtime.daemon.server import make_application, make_runner
from edge_runtime.daemon.startup import Listeners
from edge_runtime.daemon.state import Daemon
from edge_runtime.daemon.stock import Stock
from edge_runtime.daemon.succession import Succession
from edge_runtime.daemon.tidying import tidy
from edge_runtime.daemon.writer import Writer

_READY_POLL = 0.02  # seconds


def run(beginning: Beginning) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return."""
    time_slice.shorten()
    asyncio.run(_run(make_daemon(beginning), beginning.listeners, beginning.notifier))


def make_daemon(beginning: Beginning) -> Daemon:
    config, paths, listeners = beginning.config, beginning.paths, beginning.listeners
    writer = Writer(
        beginning.engine,
        config.models.writer,
        ModelFiles(config, paths.models).chat,
        config.engine.public_prefixes,
    )
    adapters = Adapters(
        paths.adapters, config.models.writer, lambda name: Path(ModelFiles(config, paths.models).writer(name).path)
    )
    adapters.serve(beginning.engine)
    memory = Memory(config.memory.budget_bytes, config.engine.cache_bytes, beginning.events)
    daemon = Daemon(
        config=config,
        paths=paths,
        household=Household(listeners.owner, listeners.group),
        seal=beginning.seal,
        listen=listeners.tcp_address,
        listener=listeners.tcp.fileno() if listeners.tcp is not None else None,
        token=listeners.token,
        engine=beginning.engine,
        embedder=beginning.embedder,
        reranker=beginning.reranker,
        writer=writer,
        adapters=adapters,
        library=Library(
            paths,
            config,
            beginning.embedder,
            Succession(
                paths.reembedded,
                beginning.events,
                find=ModelFiles(config, paths.models).embedder,
                make=beginning.make_embedder,
            ),
            sealed=beginning.seal.sealed,
        ),
        answers=Answers(),
        events=beginning.events,
        metrics=Metrics(),
        memory=memory,
        pool=Pool(
            writer,
            Stock(config, paths.models),
            config.engine,
            beginning.events,
            make=lambda name: _make_writer(beginning, adapters, name),
            room=lambda: memory.room(daemon),
            spare=lambda: memory.spare,
        ),
    )
    add_gauges(daemon)
    return daemon


def _make_writer(beginning: Beginning, adapters: Adapters, name: str) -> Writer:
    """One more writer, whose engine is not started yet."""
    config, root = beginning.config, beginning.paths.models
    engine = beginning.make_engine(name)
    adapters.serve(engine)
    return Writer(engine, name, lambda: ModelFiles(config, root).chat(name), config.engine.public_prefixes)


async def _run(daemon: Daemon, listeners: Listeners, notifier: Notifier) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Before anything is loaded on demand these are the configured ones.
    children = [_start(child.supervise()) for child in daemon.children]
    tasks = [
        *children,
        _start(daemon.library.open()),
        _start(tidy(daemon.library, daemon.requests, daemon.events)),
        _start(keep(daemon.library, daemon.paths.scan)),
        _start(_announce(daemon, notifier)),
        _start(daemon.memory.watch(daemon)),
        _start(daemon.pool.supervise()),
    ]
    runner = make_runner(make_application(daemon, ROUTES))
    await runner.setup()
    sites = [web.SockSite(runner, item) for item in (listeners.unix, listeners.tcp) if item is not None]
    for site in sites:
        await site.start()
    await stop.wait()
    notifier.tell("STOPPING=1")
    logs.info("stopping")
    await _drain(daemon, runner, sites)
    await daemon.library.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of the daemon's own: its failure is logged, and the daemon goes on."""

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.LOG.error("task.broken", exc_info=error)

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(report)
    return task


async def _announce(daemon: Daemon, notifier: Notifier) -> None:
    """Tell the service manager when the box can work; a box that cannot yet is up as well, and its status says why."""
    told = False
    while daemon.trouble:
        broken = [child for child in (daemon.engine.child, daemon.embedder.child) if child.state == "failed"]
        if broken and not told:
            told = True
            notifier.tell("READY=1", f"STATUS={daemon.trouble.splitlines()[0]}")
        await asyncio.sleep(_READY_POLL)
    notifier.tell("READY=1", "STATUS=ready")
    logs.info("ready", socket=str(daemon.paths.socket), listen=daemon.listen, sealed=daemon.seal.sealed)
    daemon.events.publish("daemon.ready")


async def _drain(daemon: Daemon, runner: web.AppRunner, sites: list[web.SockSite]) -> None:
    """No new connections, no new requests; those that run may finish, for a while."""
    for site in sites:
        await site.stop()
    daemon.stopping = True
    daemon.events.close()
    if not await daemon.requests.drain(daemon.config.server.drain_seconds):
        logs.warn("stopping.cancelled", requests=len(daemon.requests))
        daemon.requests.cancel_all()
        await daemon.requests.drain(1.0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5.0):
            await runner.cleanup()

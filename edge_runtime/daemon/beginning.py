"""The first thing after the seal: both children start, and load while ``edged`` still imports its server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.config import Config
from edge_runtime.daemon.children import Embedder, make_children, make_embedder, make_engine, make_reranker
from edge_runtime.daemon.engine import Engine
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.notify import Notifier
from edge_runtime.daemon.reranker import Reranker
from edge_runtime.daemon.startup import Listeners
from edge_runtime.paths import Paths
from edge_runtime.protocol import SealStatus
from edge_runtime.seal import SealReport
from edge_runtime.turn import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What the daemon is made from."""

    config: Config
    paths: Paths
    listeners: Listeners
    notifier: Notifier
    seal: SealStatus
    events: Events
    engine: Engine
    embedder: Embedder
    reranker: Reranker | None
    make_engine: Callable[[str], Engine]  # one more, for another writer
    make_embedder: Callable[[str], Embedder]  # one more, for another model


def begin(
    config: Config, paths: Paths, listeners: Listeners, notifier: Notifier, report: SealReport, *, turn: Turn
) -> Beginning:
    events = Events()
    engine, embedder = make_children(
        config, paths.models, events, snapshots=paths.snapshots, sealed=report.sealed, turn=turn
    )
    for child in (engine.child, embedder.child):
        child.begin()
    reranker = make_reranker(config, paths.models, events, sealed=report.sealed, turn=turn)
    return Beginning(
        config=config,
        paths=paths,
        listeners=listeners,
        notifier=notifier,
        seal=SealStatus(
            sealed=report.sealed,
            seccomp=report.seccomp,
            landlock_abi=report.landlock_abi,
            missing=list(report.missing),
        ),
        events=events,
        engine=engine,
        embedder=embedder,
        reranker=reranker,
        make_engine=lambda name: make_engine(
            name, config, paths.models, events, snapshots=paths.snapshots, sealed=report.sealed, turn=turn
        ),
        make_embedder=lambda name: make_embedder(name, config, paths.models, events, sealed=report.sealed, turn=turn),
    )

"""What the daemon's routes share: one object for the life of the process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from aiohttp import web

from edge_runtime.config import Config
from edge_runtime.daemon.adapters import Adapters
from edge_runtime.daemon.answers import Answers
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.children import Embedder
from edge_runtime.daemon.engine import Engine
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.library import Library
from edge_runtime.daemon.memory import Memory
from edge_runtime.daemon.metrics import Metrics
from edge_runtime.daemon.peers import Household
from edge_runtime.daemon.pool import Pool
from edge_runtime.daemon.requests import Requests
from edge_runtime.daemon.reranker import Reranker
from edge_runtime.daemon.writer import Writer
from edge_runtime.paths import Paths
from edge_runtime.protocol import SealStatus


@dataclass(slots=True, kw_only=True)
class Daemon:
    config: Config
    paths: Paths
    household: Household
    seal: SealStatus
    listen: str | None
    listener: int | None  # the TCP listener's descriptor, for the probe
    token: str | None
    engine: Engine
    embedder: Embedder
    reranker: Reranker | None
    writer: Writer
    adapters: Adapters
    library: Library
    answers: Answers
    events: Events
    metrics: Metrics
    memory: Memory
    pool: Pool
    requests: Requests = field(default_factory=Requests)
    started: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.monotonic)  # the same, of a clock that nobody sets
    stopping: bool = False

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every writer that is there, the configured one first."""
        return self.pool.engines

    @property
    def children(self) -> tuple[Child, ...]:
        """Every child process, the configured writer's and the embedder's first."""
        rerankers = () if self.reranker is None else (self.reranker.child,)
        former = self.library.succession.former
        formers = () if former is None else (former.child,)
        writers = (engine.child for engine in self.engines[1:])
        return (self.engine.child, self.embedder.child, *rerankers, *writers, *formers)

    @property
    def trouble(self) -> str:
        """Why the box is not ready, with what to do about it; empty when it is."""
        if self.stopping:
            return "edged is stopping"
        reasons = [
            f"the {child.name} is {child.state}" + (f": {child.detail}" if child.detail else "")
            for child in (self.engine.child, self.embedder.child)
            if child.state != "ready"
        ]
        if self.library.trouble:
            reasons.append(self.library.trouble)
        return "\n".join(reasons)


DAEMON = web.AppKey("daemon", Daemon)

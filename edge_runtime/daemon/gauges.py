"""What ``/metrics`` reads from the daemon at the moment it is asked, and the same as one snapshot for ``edge top``."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_runtime import engine_protocol
from edge_runtime.daemon.call import Call, Reply, Route
from edge_runtime.daemon.engine import Engine
from edge_runtime.daemon.metrics import Labels
from edge_runtime.daemon.state import Daemon
from edge_runtime.engine.messages import Stats

_NOTHING = Stats(running=0, waiting=0, cells_used=0, cells_total=0)


def add_gauges(daemon: Daemon) -> None:
    """Register the gauges of this daemon; those of engines carry the model's name."""
    gauge = daemon.metrics.gauge
    configured = (daemon.engine.child, daemon.embedder.child)

    def children() -> dict[Labels, float]:
        return {(("child", child.name),): float(child.state == "ready") for child in configured}

    def restarts() -> dict[Labels, float]:
        return {(("child", child.name),): float(child.status.restarts) for child in configured}

    def memory() -> dict[Labels, float]:
        return {(("process", name),): float(size) for name, size in daemon.memory.processes.items()}

    def total(read: Callable[[Engine], int]) -> Callable[[], dict[Labels, float]]:
        return lambda: {(): float(sum(read(engine) for engine in daemon.engines))}

    gauge("edge_ready", "1 when the box can do its work.", lambda: {(): float(not daemon.trouble)})
    gauge("edge_child_ready", "1 when the process with a configured model has loaded it.", children)
    gauge("edge_child_restarts", "Starts of the child process after its first.", restarts)
    gauge("edge_requests_running", "Texts that are being written.", total(lambda engine: engine.running))
    gauge("edge_requests_waiting", "Texts that have no token yet.", total(lambda engine: engine.waiting))
    gauge("edge_event_listeners", "Open event streams.", lambda: {(): float(daemon.events.listeners)})
    gauge("edge_memory_bytes", "Memory by kind of process: proportional set size, or an upper bound.", memory)
    gauge("edge_memory_budget_bytes", "What all of them may take.", lambda: {(): float(daemon.memory.budget)})
    gauge("edge_scan_bytes", "The coarse copy of the vectors on the disk.", lambda: {(): float(daemon.library.scan[0])})
    gauge("edge_scan_rows", "Vectors in it, of documents that are there.", lambda: {(): float(daemon.library.scan[1])})
    _add_engine_gauges(daemon)


def _add_engine_gauges(daemon: Daemon) -> None:
    gauge = daemon.metrics.gauge

    def depth() -> dict[Labels, float]:
        return {
            (("class", name), ("model", _model(engine)), ("state", state)): float(count)
            for engine in daemon.engines
            for state, by_class in (("waiting", engine.admission.waiting()), ("running", engine.admission.running()))
            for name, count in by_class.items()
        }

    def cells() -> dict[Labels, float]:
        return {
            (("model", _model(engine)), ("state", state)): float(count)
            for engine in daemon.engines
            if (stats := engine.stats) is not None
            for state, count in (("used", stats.cells_used), ("all", stats.cells_total))
        }

    def reused() -> dict[Labels, float]:
        return {
            (("model", _model(engine)), ("tier", tier)): float(count)
            for engine in daemon.engines
            if (stats := engine.stats) is not None
            for tier, count in stats.reused.items()
        }

    def loaded() -> dict[Labels, float]:
        return {
            (("model", name),): float(guest.engine.child.state == "ready") for name, guest in daemon.pool.guests.items()
        }

    def each(read: Callable[[Stats], float]) -> Callable[[], dict[Labels, float]]:
        return lambda: {
            (("model", _model(engine)),): float(read(engine.stats)) for engine in daemon.engines if engine.stats
        }

    gauge("edge_model_loaded", "1 when a writer is in memory, 0 while it is being loaded.", loaded)
    gauge("edge_queue_depth", "Admitted texts by class and state.", depth)
    gauge("edge_engine_cells", "Cells of the KV cache.", cells)
    gauge("edge_engine_reused_tokens", "Prompt tokens not evaluated since the engine's start, by tier.", reused)
    gauge("edge_engine_prefilled_tokens", "Those evaluated.", each(lambda stats: stats.prefilled))
    gauge("edge_engine_threads", "Threads that the engine computes with.", each(lambda stats: stats.threads))
    gauge("edge_engine_parked", "Requests that make room for others.", each(lambda stats: stats.parked))
    gauge("edge_engine_cache_bytes", "Prefixes in host memory.", each(lambda stats: stats.cache_bytes))
    gauge("edge_engine_step_seconds", "One token for every running text.", each(lambda stats: stats.step_ms / 1000))
    gauge("edge_engine_prefill_seconds", "One more token of a prompt.", each(lambda stats: stats.prefill_ms / 1000))


def _model(engine: Engine) -> str:
    return engine.child.loaded.name if engine.child.loaded is not None else ""


def _state(engine: Engine) -> engine_protocol.EngineState:
    stats = engine.stats or _NOTHING
    return engine_protocol.EngineState(
        model=_model(engine),
        state=engine.child.state,
        waiting=dict(engine.admission.waiting().items()),
        running=dict(engine.admission.running().items()),
        parked=stats.parked,
        cells_used=stats.cells_used,
        cells_total=stats.cells_total,
        cache_bytes=stats.cache_bytes,
        reused=stats.reused,
        prefilled=stats.prefilled,
        threads=stats.threads,
        prefill_ms=round(stats.prefill_ms, 3),
        step_ms=round(stats.step_ms, 3),
        resident=stats.resident,
    )


async def show_engine(call: Call, _: None) -> Reply:
    daemon, metrics = call.daemon, call.daemon.metrics
    refused: dict[str, int] = {}
    for labels, count in metrics.refused.values.items():
        reason = dict(labels)["reason"]
        refused[reason] = refused.get(reason, 0) + int(count)
    return engine_protocol.EngineReport(
        at=round(time.monotonic(), 3),
        engines=[_state(engine) for engine in daemon.engines],
        latency=metrics.recent.latency(),
        written=metrics.recent.written,
        refused=refused,
        resident=daemon.memory.used,
        budget=daemon.memory.budget,
        requests=daemon.requests.list(call.only_own),
    )


ROUTE = Route(
    method="GET",
    path="/edge/v1/engine",
    kind="engine",
    action="ask",
    summary="What the engines are doing now, and for whom; cheap enough for twice a second.",
    handle=show_engine,
    reply=engine_protocol.EngineReport,
)

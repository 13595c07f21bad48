"""``edge top``: what the engines are doing, for whom and how fast, drawn anew twice a second.

The lines are made from two snapshots by a pure function; rich only puts them on the terminal and takes them off again.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from edge_runtime.cli.output import clean_line, fit, has_color, put, put_json, size, table, width
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.engine_protocol import EngineReport, EngineState, Latency
from edge_runtime.errors import EdgeError
from edge_runtime.paths import Paths

_REFRESH_SECONDS = 0.5
_SILENCE_SECONDS = 5.0
_CLASSES = ("realtime", "interactive", "batch")
_UNKNOWN = Latency(first_p50_ms=None, first_p95_ms=None, between_p50_ms=None, between_p95_ms=None)
_LEAVE = b"qQ\x04"


@dataclass(frozen=True, slots=True)
class View:
    """The latest snapshot, the one before it, and for how many seconds the daemon has not answered."""

    now: EngineReport
    before: EngineReport | None = None
    away: float = 0.0

    @property
    def speed(self) -> float | None:
        """Tokens a second between the two; None where that cannot be said."""
        if self.before is None or self.now.at <= self.before.at or self.now.written < self.before.written:
            return None
        return (self.now.written - self.before.written) / (self.now.at - self.before.at)


def lines(view: View, *, columns: int, rows: int) -> list[str]:
    """At most ``rows`` lines of ``columns``; what has no room is counted in the last one."""
    report = view.now
    head = [_headline(view), *(_engine(engine) for engine in report.engines), _totals(report), ""]
    head += table(
        ("class", "waiting", "running", "first token p50, p95", "between tokens p50, p95"),
        [_class(report, name) for name in _CLASSES],
    )
    requests = [
        (one.id, one.kind, one.peer, one.priority, one.state, f"{one.age_s:.1f} s", one.tokens)
        for one in report.requests
    ]
    body = table(("request", "route", "peer", "class", "state", "age", "tokens"), requests, shrink=2)
    every = [*head, "", *(body if requests else ["nothing runs or waits"])]
    if len(every) > rows:
        left = len(every) - rows + 1
        every = [*every[: rows - 1], f"and {left} more"]
    return [fit(line, columns) for line in every]


def _headline(view: View) -> str:
    if view.away:
        return f"edge top: daemon unreachable for {view.away:.0f} s; this is what it said last"
    speed = "" if view.speed is None else f"{view.speed:.1f} tokens/s, "
    return f"edge top: {speed}{view.now.written} tokens written"


def _engine(engine: EngineState) -> str:
    name = clean_line(engine.model) or "engine"
    if engine.state != "ready":
        return f"{name}: {engine.state}"
    reading = f", reads {1000 / engine.prefill_ms:.0f} tokens/s" if engine.prefill_ms else ""
    step = f", {engine.step_ms:.1f} ms a step" if engine.step_ms else ""
    return (
        f"{name}: {engine.cells_used} of {engine.cells_total} cells, {engine.parked} parked, "
        f"{engine.threads} thread{'s' * (engine.threads != 1)}{step}{reading}"
    )


def _totals(report: EngineReport) -> str:
    tiers: dict[str, int] = {}
    for engine in report.engines:
        for tier, count in engine.reused.items():
            tiers[tier] = tiers.get(tier, 0) + count
    reused = ", ".join(f"{tier} {count}" for tier, count in tiers.items()) or "none"
    kept = sum(engine.cache_bytes for engine in report.engines)
    limit = f" of {size(report.budget)}" if report.budget else ""
    refused = ", ".join(f"{reason} {count}" for reason, count in sorted(report.refused.items())) or "none"
    return f"memory {size(report.resident)}{limit}; reused {reused} ({size(kept)}); refused {refused}"


def _class(report: EngineReport, name: str) -> Sequence[object]:
    latency = report.latency.get(name, _UNKNOWN)
    waiting = sum(engine.waiting.get(name, 0) for engine in report.engines)
    running = sum(engine.running.get(name, 0) for engine in report.engines)
    return (
        name,
        waiting,
        running,
        _pair(latency.first_p50_ms, latency.first_p95_ms),
        _pair(latency.between_p50_ms, latency.between_p95_ms),
    )


def _pair(median: float | None, most: float | None) -> str:
    return "-" if median is None or most is None else f"{median:.0f}, {most:.0f} ms"


def _left(seconds: float) -> bool:
    """Wait so long for keys; whether one of them leaves, or the terminal is gone."""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return False
    # Not through sys.stdin, whose buffer would keep what `select` does not see.
    keys = os.read(sys.stdin.fileno(), 64)
    return not keys or any(key in _LEAVE for key in keys)


@contextmanager
def _keys() -> Iterator[Callable[[float], object]]:
    """:func:`_left`, or a mere wait without a terminal to type at; the terminal's own mode comes back at the end."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    mode = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _left
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)


def _watch(box: SyncClient) -> None:
    """Draw until somebody leaves. Raises UnreachableError where no daemon answers at the beginning."""
    import rich.console  # noqa: PLC0415  only a terminal pays for it
    import rich.live  # noqa: PLC0415
    import rich.text  # noqa: PLC0415

    view = View(box.engine())
    answered = time.monotonic()
    console = rich.console.Console(no_color=not has_color(sys.stdout))
    with rich.live.Live(console=console, screen=True, auto_refresh=False) as live, _keys() as left:
        while True:
            shown = lines(view, columns=console.width, rows=console.height - 1)
            live.update(rich.text.Text("\n".join([*shown, "q leaves"]), no_wrap=True), refresh=True)
            if left(_REFRESH_SECONDS):
                return
            try:
                view = View(box.engine(), view.now)
                answered = time.monotonic()
            except EdgeError:
                view = View(view.now, away=time.monotonic() - answered)


@click.command(short_help="Watch what the engine is doing.")
@click.option("--json", "as_json", is_flag=True, help="One snapshot as JSON.")
@click.option("--once", is_flag=True, help="Print one snapshot and leave.")
def top(*, as_json: bool, once: bool) -> None:
    """Watch the engine: requests by class, tokens a second, latency of the last minute, cells, cache and memory.

    Drawn twice a second until q or ctrl-c. Where stdout is no terminal, one snapshot is printed.

    \b
    Example:
      edge top
      edge top --json | jq '.engines[0].step_ms'
    """
    with connect_sync(Paths.from_environment().socket, silence_s=_SILENCE_SECONDS) as box:
        if as_json:
            put_json(box.engine())
        elif once or not sys.stdout.isatty():
            for line in lines(View(box.engine()), columns=width(), rows=10_000):
                put(line)
        else:
            try:
                _watch(box)
            except KeyboardInterrupt:
                return

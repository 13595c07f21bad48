"""A 2,000-token prompt arrives while four streams run: what they feel of it, against how soon the newcomer begins.

The two are a trade: each setting of ours (``itl_target_ms``) and of llama-server (``-b``) is a point of a curve.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks import figures
from benchmarks.load import Choir, Door, Exchange, completion
from benchmarks.stage import Outcome, Row, Stage, middle

STREAMS = 4
PROMPT = 64
STREAM_TOKENS = 1000
NEWCOMER = 2000
TARGETS = (50, 100, 200, 400, 800)  # ms
BATCHES = (32, 128, 512, 0)  # 0: llama-server's default
TARGET = 100
GAP_BAR = 1.2  # of the target, at p99
PEER_BAR = 1 / 5
_PATIENCE_S = 90.0
_QUIET_S = 1.5


@dataclass(frozen=True, slots=True)
class Point:
    """One arrival; seconds. ``gaps`` are of the four streams from the newcomer's arrival to its first token."""

    setting: float  # ours: milliseconds; llama-server's: tokens, 0 for its default
    first_s: float
    p99_s: float
    longest_s: float
    quiet_p99_s: float
    streams_tokens_s: float


async def _arrive(stage: Stage, door: Door, setting: int) -> Point:
    async with Choir(door, [stage.text(PROMPT) for _ in range(STREAMS)], STREAM_TOKENS) as choir:
        if not await choir.settled():
            raise RuntimeError(f"four streams did not begin: {choir.errors()}")
        quiet = time.perf_counter()
        await asyncio.sleep(_QUIET_S)
        newcomer = await Exchange.open(door, "/v1/completions", completion(stage.text(NEWCOMER), 2))
        await newcomer.begun(seconds=_PATIENCE_S)
        told = newcomer.told
        begun = told.events[0][0] if told.events else time.perf_counter()
        await asyncio.sleep(0.3)  # the gap that the last piece of the prompt makes ends after it
        newcomer.cancel()
        gaps = choir.gaps(told.sent, begun)
        before = choir.gaps(quiet, told.sent)
        if choir.errors():
            raise RuntimeError(f"a stream failed beside a long prompt: {choir.errors()}")
        return Point(
            setting=setting,
            first_s=begun - told.sent if told.events else float("inf"),
            p99_s=float(np.quantile(gaps, 0.99)),
            longest_s=max(gaps),
            quiet_p99_s=float(np.quantile(before, 0.99)),
            streams_tokens_s=choir.rate(told.sent, begun),
        )


def _together(points: list[Point]) -> Point:
    """The medians of several arrivals at one setting."""
    values = {name: middle([asdict(point)[name] for point in points]) for name in asdict(points[0])}
    return Point(**values)


async def _ours(stage: Stage, target: int, runs: int) -> Point:
    table = f"[engine.itl_target_ms]\nrealtime = {target}.0\ninteractive = {target}.0\nbatch = {target}.0\n"
    with stage.box(settings=table) as box:
        await _warm(stage, box.socket)
        return _together([await _arrive(stage, box.socket, target) for _ in range(runs)])


async def _warm(stage: Stage, door: Door) -> None:
    exchange = await Exchange.open(door, "/v1/completions", completion(stage.text(256), 16))
    await exchange.end()


async def long_prompt(stage: Stage) -> Outcome:
    """The whole curve of both, and what ours costs the streams at llama-server's own time to first token."""
    targets = (TARGET, 400) if stage.quick else TARGETS
    ours = [await _ours(stage, target, 1 if stage.quick or target != TARGET else 2) for target in targets]
    chosen = next(point for point in ours if point.setting == TARGET)
    note = f" (longest {chosen.longest_s * 1e3:.0f} ms; the newcomer's first token after {chosen.first_s:.1f} s)"
    bar = GAP_BAR * TARGET
    rows = [Row.most("long prompt beside 4 streams: p99 gap", chosen.p99_s * 1e3, bar, " ms", note)]
    theirs: dict[str, list[Point]] = {}
    for name in stage.peers[:1]:
        theirs[name] = []
        for batch in (512, 0) if stage.quick else BATCHES:
            with stage.peer(name, batch=batch) as peer:
                await _warm(stage, peer.door)
                theirs[name].append(await _arrive(stage, peer.door, batch))
        default = theirs[name][-1]
        gap, within = figures.interpolate(
            [point.first_s for point in ours], [point.longest_s for point in ours], default.first_s
        )
        note = f" ({gap * 1e3:.0f} of {default.longest_s * 1e3:.0f} ms at {default.first_s:.1f} s"
        note += ")" if within else ", the nearest that ours was measured at)"
        label = f"longest gap / {name}'s, at its time to first token"
        rows.append(Row.most(label, gap / default.longest_s, PEER_BAR, note=note))
    told = {"ours": [asdict(point) for point in ours]}
    told |= {name: [asdict(point) for point in points] for name, points in theirs.items()}
    return Outcome(rows, {"points": told})

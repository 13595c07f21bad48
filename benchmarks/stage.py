"""What the scenarios of the engine's benchmark stand on: weights, texts, boxes, the memory watch, rows of the table."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bare import Bare
from benchmarks.box import Box
from benchmarks.load import Told, get
from benchmarks.peers import Name, Peer
from edge_runtime.paths import Paths
from models.store import Store

CONTEXT = 8192  # tokens of KV cache, of ours, of the bare loop and of the peers
HEADROOM = 300 * 2**20  # bytes above idle: the memory bar
_WATCH_S = 0.5
_GROWN = 1 << 20  # bytes; counting the pages of a large model takes a core for 20 ms, so it waits until there are more
_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of the table: what was measured, and whether it holds (None: stated only, or not measured)."""

    name: str
    bar: str
    figure: str
    holds: bool | None

    @classmethod
    def least(cls, name: str, figure: float, bar: float, note: str = "") -> Row:
        return cls(name, f">= {bar:g}", f"{figure:.3f}{note}", figure >= bar)

    @classmethod
    def most(cls, name: str, figure: float, bar: float, unit: str = "", note: str = "") -> Row:
        return cls(name, f"<= {bar:g}{unit}", f"{figure:.4g}{unit}{note}", figure <= bar)

    @classmethod
    def stated(cls, name: str, figure: str) -> Row:
        return cls(name, "stated", figure, None)


@dataclass(slots=True)
class Outcome:
    """A scenario's rows for the table, and its figures for the JSON."""

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


class Memory:
    """Samples the PSS of all processes of the boxes that are up, from a thread of its own.

    What is resident (RSS) costs next to nothing to read; PSS is taken whenever that has grown.
    """

    def __init__(self) -> None:
        self.highest: dict[str, int] = {}  # of the sample with the highest total
        self.samples = 0
        self._boxes: dict[Box, int] = {}  # with the RSS of the latest sample
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def watching(self, box: Box) -> Iterator[None]:
        with self._lock:
            self._boxes[box] = 0
        try:
            yield
        finally:
            with self._lock:
                del self._boxes[box]

    def _watch(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            with self._lock:
                for box, known in self._boxes.items():
                    held = box.held_bytes()
                    self._boxes[box] = min(known, held)
                    if held < known + _GROWN:
                        continue
                    self._boxes[box] = held
                    sizes = box.resident_bytes()
                    self.samples += 1
                    if sizes["total"] > self.highest.get("total", 0):
                        self.highest = sizes


@dataclass
class Stage:
    """One run of the benchmark: one writer, one set of texts, and everything that is started for it."""

    writer: str
    quick: bool
    peers: tuple[Name, ...]
    scratch: Path
    memory: Memory = field(default_factory=Memory)
    budget: int = 0  # bytes; 0 until idle is known
    idle: dict[str, int] = field(default_factory=dict)
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    _weights: dict[str, Path] = field(default_factory=dict)
    _texts: dict[str, Bare] = field(default_factory=dict)
    _seed: int = 0

    def weights(self, writer: str = "") -> Path:
        """A copy of the writer's weights (the tuned variant where there is one) for the bare loop and the peers.

        It is a copy so that the boxes' share of the pages stays their own, and their PSS is what it is alone.
        """
        writer = writer or self.writer
        if writer not in self._weights:
            source = Store(Paths.from_environment().models, quota_bytes=2**60).writer_path(writer)
            target = Path(shutil.copy(source, self.scratch / f"{writer}.gguf"))
            with target.open("rb") as file:  # as the store leaves its own: the next one reads it into large pages
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._weights[writer] = target
        return self._weights[writer]

    @contextmanager
    def box(self, *, writer: str = "", settings: str = "", engine: str = "") -> Iterator[Box]:
        """A daemon with the memory budget of the bar; ``engine`` is more of its table [engine]."""
        text = f"[engine]\ncontext = {CONTEXT}\n{engine}\n"
        if self.budget:
            text += f"[memory]\nbudget_bytes = {self.budget}\n"
        with Box(writer or self.writer, settings=text + settings) as box, self.memory.watching(box):
            yield box

    def measure_idle(self) -> None:
        """What an idle box takes; the budget of every box from then on is that and the headroom."""
        with self.box() as box:
            time.sleep(_SETTLE_S)
            self.idle = box.resident_bytes()
        self.budget = self.idle["total"] + HEADROOM
        self.memory.highest = {}

    def bare(self, *, sequences: int = 8, environment: dict[str, str] | None = None) -> Bare:
        return Bare(self.weights(), context=CONTEXT, threads=self.cores, sequences=sequences, environment=environment)

    def peer(self, name: Name, *, batch: int = 0) -> Peer:
        return Peer(name, self.weights(), context=CONTEXT, threads=self.cores, batch=batch)

    def text(self, tokens: int, *, writer: str = "", start: str = "") -> str:
        """A text of exactly ``tokens`` tokens that begins like no other of this run."""
        writer = writer or self.writer
        if writer not in self._texts:
            loop = Bare(self.weights(writer), context=256, threads=1, sequences=1)
            self._texts[writer] = loop.__enter__()
        self._seed += 1
        return self._texts[writer].text(self._seed, tokens, start or f"{self._seed} notes. ")

    def close(self) -> None:
        for loop in self._texts.values():
            loop.__exit__(None, None, None)


Scenario = Callable[[Stage], Coroutine[Any, Any, Outcome]]


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def whole_rate(told: Sequence[Told], tokens: int) -> float:
    """Tokens a second of all streams together, from the first request's sending to the last one's end.

    Raises:
        RuntimeError: a stream failed, or ended early.
    """
    for one in told:
        if one.error or one.completion_tokens != tokens:
            raise RuntimeError(f"a stream of {tokens} tokens ended after {one.completion_tokens}: {one.error}")
    ends = [one.finish[0] if one.finish else one.ended for one in told]
    return len(told) * tokens / (max(ends) - min(one.sent for one in told))


async def metric(box: Box, name: str) -> float:
    """The sum over its labels of one of the daemon's metrics; 0 where it has none of that name."""
    lines = (await get(box.socket, "/metrics")).body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def idle(box: Box, seconds: float = 60.0) -> None:
    """Wait until the engine has nothing to do."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        busy = [await metric(box, name) for name in ("edge_requests_running", "edge_requests_waiting")]
        if not any(busy):
            return
        await asyncio.sleep(0.1)

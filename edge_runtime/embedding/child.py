"""The embedder child: one thread that answers ``embed`` requests over an inherited socket, in order of arrival.

A request is run in small batches. Questions go before other short requests, and those before what is left of longer
ones (documents being added), so a question waits for one batch at most. Batches take turns with the engine's steps;
documents take half of the time at most while it has work, and a small batch runs beside it now and then. The reranker
is one too: it has loaded a cross-encoder, and answers ``rerank``, one request after the other.
"""

from __future__ import annotations

import itertools
import os
import select
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_runtime.embedding.cross import CrossEncoder, Ordering
from edge_runtime.embedding.onnx import Encoder, Piece, Reading
from edge_runtime.embedding.windows import Matrix, pool
from edge_runtime.engine.messages import (
    Cancel,
    Down,
    Embed,
    Failed,
    FrameError,
    Frames,
    Load,
    Probe,
    Probed,
    Ready,
    Rerank,
    Reranked,
    Stats,
    Stop,
    Up,
    Vectors,
    decode_down,
    encode,
)
from edge_runtime.errors import EdgeError
from edge_runtime.resident import Resident
from edge_runtime.seal import attempts
from edge_runtime.turn import Turn

BATCH_TOKENS = 256  # padded tokens a run: 15 to 35 ms on two cores, and larger batches are no faster
SMALL_TOKENS = 64  # padded tokens that run beside the engine: 3 to 8 ms, less than the wait for its step
BESIDE = 3  # times as long as such a batch took, the next ones take their turn: many users ask at once
SHORT_WINDOWS = 4  # a request of no more windows than this is short
READ_BYTES = 2**18
STATS_SECONDS = 1.0


@dataclass(slots=True)
class Job:
    """An ``embed`` request on its way: its windows, and the rows that are ready."""

    request: Embed
    pieces: list[list[Piece]]
    rows: Matrix
    batches: Iterator[list[int]]
    flat: list[Piece] = field(default_factory=list)

    @classmethod
    def of(cls, request: Embed, encoder: Encoder) -> Job:
        pieces = [encoder.read(text, request.kind) for text in request.texts]
        flat = [piece for text in pieces for piece in text]
        rows = np.empty((len(flat), encoder.width), np.float32)
        return cls(request, pieces, rows, iter(batches([len(piece.ids) for piece in flat])), flat)

    def next(self) -> list[int] | None:
        """Which windows are to be run together now; None when all are done."""
        return next(self.batches, None)

    def padded(self, batch: list[int]) -> int:
        """Tokens that running ``batch`` costs."""
        return len(batch) * max(len(self.flat[index].ids) for index in batch)

    def run(self, batch: list[int], encoder: Encoder) -> None:
        self.rows[batch] = encoder.encode([self.flat[index].ids for index in batch])

    def reply(self, width: int) -> Vectors:
        counts = [len(text) for text in self.pieces]
        tokens = sum(text[-1].window.last for text in self.pieces)
        spans = [(piece.window.start, piece.window.end) for piece in self.flat]
        rows = self.rows
        if self.request.pool:
            ends = list(itertools.accumulate(counts))
            pooled = [pool(rows[end - count : end]) for count, end in zip(counts, ends, strict=True)]
            rows = np.vstack(pooled) if pooled else rows
            spans = [(0, len(text)) for text in self.request.texts]
            counts = [1] * len(counts)
        data = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        return Vectors(id=self.request.id, width=width, counts=counts, spans=spans, data=data, tokens=tokens)


def batches(lengths: list[int], limit: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices into ``lengths``, sorted by length and cut so that a batch, padded, stays within ``limit`` tokens."""
    out: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if out and (len(out[-1]) + 1) * lengths[index] <= limit:
            out[-1].append(index)
        else:
            out.append([index])
    return out


class Child:
    """Reads messages from ``descriptor``, answers on it, and leaves when told to or when the other side is gone."""

    def __init__(self, descriptor: int, turn: Turn) -> None:
        os.set_blocking(descriptor, True)
        self._turn = turn
        self._resume = 0.0  # when documents go on (monotonic seconds)
        self._aside = 0.0  # when a small batch may run beside the engine again
        self._resident = Resident()
        self._told = 0.0
        self._thread = ThreadPoolExecutor(1)
        self._wake = os.eventfd(0)  # written when its work is done
        self._stopping = False
        self._descriptor = descriptor
        self._frames = Frames()
        self._encoder: Encoder | None = None
        self._cross: CrossEncoder | None = None
        self._orderings: OrderedDict[str, Ordering] = OrderedDict()
        self._token_seconds = 0.0  # of the cross-encoder, for each padded token
        self._questions: OrderedDict[str, Job] = OrderedDict()
        self._short: OrderedDict[str, Job] = OrderedDict()
        self._documents: OrderedDict[str, Job] = OrderedDict()

    @property
    def _lanes(self) -> tuple[OrderedDict[str, Job], ...]:
        """What is in the first goes first."""
        return self._questions, self._short, self._documents

    def serve(self) -> None:
        """Until ``stop`` or the end of the stream."""
        while not self._stopping and self._take(self._pause()):
            lane = self._questions or self._short or self._documents
            if lane and self._encoder is not None:
                self._advance(lane, self._encoder)
            if self._orderings and self._cross is not None:
                self._rank(*next(iter(self._orderings.items())), self._cross)

    def _pause(self) -> float | None:
        """Seconds for which nothing is to be done unless something arrives; None: for ever."""
        if self._questions or self._short or self._orderings:
            return 0.0
        return max(0.0, self._resume - time.monotonic()) if self._documents else None

    def _advance(self, lane: OrderedDict[str, Job], encoder: Encoder) -> None:
        documents = lane is self._documents
        if documents and time.monotonic() < self._resume:
            return
        key, job = next(iter(lane.items()))
        batch = job.next()
        if batch is not None:
            if not documents and job.padded(batch) <= SMALL_TOKENS and (began := time.monotonic()) >= self._aside:
                job.run(batch, encoder)
                self._turn.mark()
                self._aside = (ended := time.monotonic()) + BESIDE * (ended - began)
                return
            with self._turn:
                began = time.monotonic()
                if documents:
                    self._run_beside(job, batch, encoder)
                else:
                    job.run(batch, encoder)
                ended = time.monotonic()
            if documents and self._turn.waited:
                self._resume = ended + (ended - began)
            return
        self._finish(lane, key, job, encoder)
        if documents and not lane:
            encoder.settle()
            self._told = 0.0
        self._tell()

    def _run_beside(self, job: Job, batch: list[int], encoder: Encoder) -> None:
        """Run a documents' batch in a thread, and meanwhile here what is short: a question need not wait for it."""
        running = self._thread.submit(job.run, batch, encoder)
        running.add_done_callback(lambda _: os.eventfd_write(self._wake, 1))
        while not running.done():
            lane = self._questions or self._short
            if not lane and self._orderings and self._cross is not None:
                self._rank(*next(iter(self._orderings.items())), self._cross)
                continue
            if not lane:
                ready = select.select([self._descriptor, self._wake], [], [])[0]
                if self._descriptor in ready and not (self._stopping or self._take(0.0)):
                    self._stopping = True
                    break
                continue
            key, short = next(iter(lane.items()))
            part = short.next()
            if part is not None:
                short.run(part, encoder)
            else:
                self._finish(lane, key, short, encoder)
            if not (self._stopping or self._take(0.0)):
                self._stopping = True
                break
        running.result()
        os.eventfd_read(self._wake)

    def _finish(self, lane: OrderedDict[str, Job], key: str, job: Job, encoder: Encoder) -> None:
        lane.pop(key, None)
        try:
            self._send(job.reply(encoder.width))
        except FrameError as error:
            self._fail(key, "request_too_large", f"{error}: send fewer texts at once")

    def _rank(self, key: str, ordering: Ordering, encoder: CrossEncoder) -> None:
        """Its time is short, so it waits for no turn: what it computes is counted as any other work."""
        ordering.token_seconds = ordering.token_seconds or self._token_seconds
        if ordering.advance(encoder):
            self._turn.mark()
            return
        self._token_seconds = ordering.token_seconds
        del self._orderings[key]
        self._send(ordering.reply())
        self._tell()

    def _tell(self) -> None:
        """Say how large this process is, now and then."""
        now = time.monotonic()
        if now - self._told < STATS_SECONDS:
            return
        self._told = now
        waiting = sum(len(lane) for lane in self._lanes) + len(self._orderings)
        size = self._resident.bytes()
        self._send(Stats(running=0, waiting=waiting, cells_used=0, cells_total=0, resident=size))

    def _take(self, seconds: float | None) -> bool:
        """Read what has arrived, or arrives within ``seconds``; False when this child should leave."""
        while select.select([self._descriptor], [], [], seconds)[0]:
            data = os.read(self._descriptor, READ_BYTES)
            if not data:
                return False
            for body in self._frames.feed(data):
                if not self._accept(decode_down(body)):
                    return False
            seconds = 0.0
        return True

    def _accept(self, message: Down) -> bool:
        match message:
            case Load():
                self._load(message)
            case Embed():
                self._queue(message)
            case Rerank(id=key):
                if self._cross is None:
                    self._fail(key, "engine_unavailable", "no reranker is loaded: set models.reranker in edge.toml")
                elif message.texts:
                    self._orderings[key] = Ordering.of(message, self._cross)
                else:
                    self._send(Reranked(id=key, probabilities=[]))
            case Cancel(id=key):
                ordering = self._orderings.pop(key, None)
                if any(lane.pop(key, None) for lane in self._lanes) or ordering is not None:
                    self._fail(key, "cancelled", "the request was cancelled")
            case Probe(id=key):
                self._send(Probed(id=key, attempts=[(one.route, one.refused, one.detail) for one in attempts()]))
            case Stop():
                return False
            case other:
                self._fail(getattr(other, "id", ""), "invalid_request", "the embedder does not do this")
        return True

    def _load(self, request: Load) -> None:
        start = time.monotonic()
        self._resident = Resident()
        if request.pooling == "score":
            self._load_cross(request, start)
            return
        reading = Reading(pooling=request.pooling, window=request.window, query=request.query, passage=request.passage)
        try:
            encoder = Encoder(Path(request.path), Path(request.tokenizer), threads=request.threads, reading=reading)
            encoder.settle()
            self._resident.settle(Path(request.path).stat().st_size)
        except EdgeError as error:
            self._send(Failed.of("load", error))
            return
        self._encoder = encoder
        elapsed = (time.monotonic() - start) * 1000
        self._send(Ready(name=request.name, context=request.window, width=encoder.width, load_ms=elapsed))
        self._tell()

    def _load_cross(self, request: Load, start: float) -> None:
        try:
            cross = CrossEncoder(
                Path(request.path), Path(request.tokenizer), threads=request.threads, window=request.window
            )
            self._resident.settle(Path(request.path).stat().st_size)
        except EdgeError as error:
            self._send(Failed.of("load", error))
            return
        self._cross = cross
        elapsed = (time.monotonic() - start) * 1000
        self._send(Ready(name=request.name, context=request.window, width=1, load_ms=elapsed))
        self._tell()

    def _queue(self, request: Embed) -> None:
        if self._encoder is None:
            self._fail(request.id, "engine_unavailable", "no embedding model is loaded yet: try again shortly")
            return
        job = Job.of(request, self._encoder)
        if len(job.flat) > SHORT_WINDOWS:
            self._documents[request.id] = job
        elif request.kind == "query":
            self._questions[request.id] = job
        else:
            self._short[request.id] = job

    def _fail(self, key: str, code: str, message: str) -> None:
        self._send(Failed(id=key, code=code, message=message))

    def _send(self, message: Up) -> None:
        rest = memoryview(encode(message))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

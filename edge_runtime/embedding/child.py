"""The embedder child: one thread that answers ``embed`` requests over an inherited socket, in order of arrival.

A request is run in small batches. Short requests (questions) go before what is left of longer ones (documents being
added), so a question waits for one batch at most.
"""

from __future__ import annotations

import itertools
import os
import select
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

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
    Stop,
    Up,
    Vectors,
    decode_down,
    encode,
)
from edge_runtime.errors import EdgeError
from edge_runtime.seal import attempts

BATCH_TOKENS = 256  # padded tokens a run: 15 to 35 ms on two cores, and larger batches are no faster
QUESTION_WINDOWS = 4  # a request of no more windows than this is a question
READ_BYTES = 2**18


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

    def step(self, encoder: Encoder) -> bool:
        """Run one batch; False when none was left."""
        batch = next(self.batches, None)
        if batch is None:
            return False
        self.rows[batch] = encoder.encode([self.flat[index].ids for index in batch])
        return True

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

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, True)
        self._descriptor = descriptor
        self._frames = Frames()
        self._encoder: Encoder | None = None
        self._questions: OrderedDict[str, Job] = OrderedDict()
        self._documents: OrderedDict[str, Job] = OrderedDict()

    def serve(self) -> None:
        """Until ``stop`` or the end of the stream."""
        while self._take(wait=not (self._questions or self._documents)):
            lane = self._questions or self._documents
            if lane and self._encoder is not None:
                self._advance(lane, self._encoder)

    def _advance(self, lane: OrderedDict[str, Job], encoder: Encoder) -> None:
        key, job = next(iter(lane.items()))
        if job.step(encoder):
            return
        del lane[key]
        try:
            self._send(job.reply(encoder.width))
        except FrameError as error:
            self._fail(key, "request_too_large", f"{error}: send fewer texts at once")
        if lane is self._documents and not lane:
            encoder.settle()

    def _take(self, *, wait: bool) -> bool:
        """Read what has arrived, at least one part of it where ``wait``; False when this child should leave."""
        while wait or select.select([self._descriptor], [], [], 0)[0]:
            data = os.read(self._descriptor, READ_BYTES)
            if not data:
                return False
            for body in self._frames.feed(data):
                if not self._accept(decode_down(body)):
                    return False
            wait = False
        return True

    def _accept(self, message: Down) -> bool:
        match message:
            case Load():
                self._load(message)
            case Embed():
                self._queue(message)
            case Cancel(id=key):
                dropped = self._questions.pop(key, None) or self._documents.pop(key, None)
                if dropped is not None:
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
        reading = Reading(pooling=request.pooling, window=request.window, query=request.query, passage=request.passage)
        try:
            encoder = Encoder(Path(request.path), Path(request.tokenizer), threads=request.threads, reading=reading)
            encoder.settle()
        except EdgeError as error:
            self._fail("load", error.code, error.message)
            return
        self._encoder = encoder
        elapsed = (time.monotonic() - start) * 1000
        self._send(Ready(name=request.name, context=request.window, width=encoder.width, load_ms=elapsed))

    def _queue(self, request: Embed) -> None:
        if self._encoder is None:
            self._fail(request.id, "engine_unavailable", "no embedding model is loaded yet: try again shortly")
            return
        job = Job.of(request, self._encoder)
        lane = self._questions if len(job.flat) <= QUESTION_WINDOWS else self._documents
        lane[request.id] = job

    def _fail(self, key: str, code: str, message: str) -> None:
        self._send(Failed(id=key, code=code, message=message))

    def _send(self, message: Up) -> None:
        rest = memoryview(encode(message))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

"""Is flash attention faster than the plain kind, for this writer on this machine? Two contexts on the same weights.

The engine leaves the choice to llama.cpp (AUTO), which takes it wherever it can: this says whether that is right. Every
figure is the median of three rounds that alternate. The deterministic lane has no choice: it needs the flash kind.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answer import installed
from benchmarks.machine import describe
from edge_runtime.config import ModelsConfig
from edge_runtime.engine.llama import Rows, Vocabulary, binding
from edge_runtime.paths import Paths
from models.store import Store

BATCH = 512  # rows a step while a prompt is read
PROMPT = 1000  # tokens
SHORT, LONG = 64, 4000  # cells behind which one row is evaluated, beside those of the prompt
STREAMS, OWN = 8, LONG // 8  # rows a step, and the cells of each
STEPS = 24  # of which the lower quartile is taken: what one takes while the neighbours are quiet
ROUNDS = 3
_EXAMPLE = "example: python -m benchmarks.flash_attention --writer smollm2-135m-instruct --threads 2"


class Context:
    """One context of ``model``, with flash attention or without."""

    def __init__(self, model: Any, *, flash: bool, threads: int) -> None:
        self._c = c = binding()
        options = c.llama_context_default_params()
        options.n_ctx = LONG + STREAMS * STEPS
        options.n_batch = options.n_ubatch = BATCH
        options.n_seq_max = STREAMS
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        options.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = c.llama_init_from_model(model, options)
        if not self._context:
            raise RuntimeError(f"no context of {options.n_ctx} tokens with flash attention {'on' if flash else 'off'}")
        self._memory = c.llama_get_memory(self._context)
        self._rows = Rows(c, BATCH)

    def read(self, tokens: Sequence[int], start: int) -> float:
        """Seconds to read ``tokens`` into the first sequence, which holds ``start`` tokens."""
        self.cut(start)
        began = time.perf_counter()
        for place in range(0, len(tokens), BATCH):
            part = tokens[place : place + BATCH]
            self._rows.wanted[: len(part)] = 0
            self._rows.wanted[len(part) - 1] = 1
            self._run(part, range(start + place, start + place + len(part)), [0] * len(part))
        return time.perf_counter() - began

    def write(self, token: int, start: int) -> float:
        """Seconds of a step of one row behind ``start`` cells, which are all that there are."""
        self.cut(start)
        return self._steps(lambda step: self._run([token], [start + step], [0]))

    def spread(self) -> None:
        """Give each part of what was read to a sequence of its own."""
        for stream in range(1, STREAMS):
            self._c.llama_memory_seq_cp(self._memory, 0, stream, stream * OWN, (stream + 1) * OWN)
        self.cut(OWN)

    def write_all(self, token: int) -> float:
        """Seconds of a step of a row for each sequence."""
        streams = list(range(STREAMS))
        for stream in streams:
            self._c.llama_memory_seq_rm(self._memory, stream, (stream + 1) * OWN, -1)
        ends = [(stream + 1) * OWN for stream in streams]
        return self._steps(lambda step: self._run([token] * STREAMS, [end + step for end in ends], streams))

    def drop_others(self) -> None:
        """Leave the first sequence alone."""
        for stream in range(1, STREAMS):
            self._c.llama_memory_seq_rm(self._memory, stream, -1, -1)

    def cut(self, start: int) -> None:
        """Leave ``start`` tokens of the first sequence."""
        self._c.llama_memory_seq_rm(self._memory, 0, start, -1)

    def close(self) -> None:
        self._c.llama_free(self._context)

    def _steps(self, step: Callable[[int], None]) -> float:
        self._rows.wanted[:STREAMS] = 1
        found = []
        for number in range(STEPS):
            began = time.perf_counter()
            step(number)
            found.append(time.perf_counter() - began)
        return sorted(found)[STEPS // 4]

    def _run(self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int]) -> None:
        count = len(tokens)
        self._rows.tokens[:count] = tokens
        self._rows.positions[:count] = positions
        self._rows.sequences[:count] = sequences
        if self._c.llama_decode(self._context, self._rows.batch(count)) != 0:
            raise RuntimeError(f"llama_decode refused {count} rows")
        self._c.llama_synchronize(self._context)


def compare(on: Context, off: Context, measure: Callable[[Context], float]) -> dict[str, float]:
    """Medians of alternating rounds, in milliseconds, and how many times as long it takes without."""
    rounds = [(measure(on), measure(off)) for _ in range(ROUNDS)]
    with_it, without = (statistics.median(times) * 1e3 for times in zip(*rounds, strict=True))
    return {"on_ms": round(with_it, 3), "off_ms": round(without, 3), "off_over_on": round(without / with_it, 3)}


def measure(path: Path, threads: int) -> dict[str, dict[str, float]]:
    """All that is measured of the model in ``path``."""
    c = binding()
    settings = c.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = c.llama_model_load_from_file(str(path).encode(), settings)
    width = Vocabulary(model).width
    tokens = np.random.default_rng(1).integers(width // 8, width // 2, LONG).tolist()
    on, off = (Context(model, flash=flash, threads=threads) for flash in (True, False))
    both = (on, off)
    for context in both:
        context.read(tokens[:BATCH], 0)  # its buffers are there then
    found = {f"prompt of {PROMPT:,} tokens": compare(on, off, lambda context: context.read(tokens[:PROMPT], 0))}
    found[_one(PROMPT)] = compare(on, off, lambda context: context.write(tokens[0], PROMPT))
    for context in both:
        context.read(tokens[PROMPT:], PROMPT)
    found[_one(len(tokens))] = compare(on, off, lambda context: context.write(tokens[0], len(tokens)))
    for context in both:
        context.spread()
    found[f"{STREAMS} rows at {STREAMS} x {OWN} cells"] = compare(on, off, lambda context: context.write_all(tokens[0]))
    for context in both:
        context.drop_others()
    found[_one(SHORT)] = compare(on, off, lambda context: context.write(tokens[0], SHORT))
    for context in both:
        context.close()
    c.llama_model_free(model)
    return found


def _one(cells: int) -> str:
    return f"1 row at {cells:,} cells"


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.flash_attention", description=__doc__, epilog=_EXAMPLE
    )
    arguments.add_argument("--writer", default=ModelsConfig().writer, help="one that is installed (%(default)s)")
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(%(default)s)")
    asked = arguments.parse_args()
    if not installed((asked.writer,)):
        arguments.error(
            f"the writer {asked.writer} is not here; fetch it with: edge-firmware setup --writer {asked.writer}"
        )
    path = Store(Paths.from_environment().models, quota_bytes=2**60).writer_path(asked.writer)
    found = measure(path, asked.threads)
    for name, figures in found.items():
        print(
            f"{name:26s} on {figures['on_ms']:9.2f} ms   off {figures['off_ms']:9.2f} ms   off / on "
            f"{figures['off_over_on']:.3f}",
            file=sys.stderr,
        )
    print(json.dumps({"machine": describe(), "writer": asked.writer, "threads": asked.threads, "figures": found}))


if __name__ == "__main__":
    main()

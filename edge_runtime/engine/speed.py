"""``python -P -m edge_runtime.engine.speed PATH``: how fast one model file runs on this machine, as one JSON line.

A process of its own, so that each file starts from the same state. Other work on the machine only ever adds time, so
the lower quartile of the steps counts, and the best of the repeats.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.engine.loss import held_text
from edge_runtime.errors import EdgeError

PROMPT = 512  # tokens
ALONE = 32  # tokens decoded by one sequence
TOGETHER = 12  # steps of all sequences
FEWEST = 4  # steps, and after that no more than
PATIENCE = 2.0  # seconds of them: beside busy neighbours one step can take a second
SEQUENCES = 8
REPEATS = 2


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a second: of a prompt, of one sequence, and of eight together (they share the prompt's cells)."""

    prefill: float
    decode: float
    decode_8: float

    def best(self, other: Speed) -> Speed:
        return Speed(
            prefill=max(self.prefill, other.prefill),
            decode=max(self.decode, other.decode),
            decode_8=max(self.decode_8, other.decode_8),
        )


def measure(path: Path, *, threads: int) -> Speed:
    """Run ``path`` as the engine does.

    Raises:
        ModelFileError, EngineError: as :class:`edge_runtime.engine.llama.Llama`.
    """
    model = Llama(path, Shape(context=2048, threads=threads, sequences=SEQUENCES, outputs=SEQUENCES))
    prompt = model.vocabulary.tokens(held_text())[:PROMPT]
    model.warm_up()
    rounds = [_round(model, prompt) for _ in range(REPEATS)]
    model.close()
    best = rounds[0]
    for speed in rounds[1:]:
        best = best.best(speed)
    return best


def _round(model: Llama, prompt: list[int]) -> Speed:
    model.forget(-1, 0)
    starts = range(0, len(prompt), model.batch)
    prefill = [_seconds(partial(model.decode, prompt[start : start + model.batch], start)) for start in starts]
    token = int(model.logits().argmax())
    alone = _steps(ALONE, lambda step: model.decode([token], len(prompt) + step))
    for sequence in range(1, SEQUENCES):
        model.copy(0, sequence)
    start = len(prompt) + len(alone)
    together = _steps(TOGETHER, lambda step: model.step([token] * SEQUENCES, [start + step] * SEQUENCES))
    return Speed(
        prefill=len(prompt) / sum(prefill),
        decode=1 / _undisturbed(alone),
        decode_8=SEQUENCES / _undisturbed(together),
    )


def _steps(count: int, step: Callable[[int], None]) -> list[float]:
    """Seconds of each of ``count`` steps, or of as many as fit in the patience."""
    found: list[float] = []
    while len(found) < FEWEST or (len(found) < count and sum(found) < PATIENCE):
        found.append(_seconds(partial(step, len(found))))
    return found


def _undisturbed(seconds: list[float]) -> float:
    """The lower quartile: what a step takes while the neighbours are quiet."""
    return sorted(seconds)[len(seconds) // 4]


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    arguments = argparse.ArgumentParser(prog="edge_runtime.engine.speed")
    arguments.add_argument("path", type=Path)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = arguments.parse_args()
    os.environ["GGML_NO_BACKTRACE"] = "1"
    try:
        found = measure(asked.path, threads=asked.threads)
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

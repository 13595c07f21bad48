"""``python -P -m edge_runtime.engine.loss SOURCE FILE...``: what re-quantised files lose against their source.

Reads 4,096 tokens of held text (``held_text.txt``, our own prose, log lines, tables and code) in windows of 512, each
window from an empty context, and compares whole next-token distributions. All the files are open at once, so that the
source is evaluated once: their weights must fit in memory together. Prints JSON, one object a line.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.engine.sampling import log_softmax
from edge_runtime.errors import EdgeError, EngineError

Rows = npt.NDArray[np.float32]

WINDOW = 512  # tokens
WINDOWS = 8
_BATCH = 128  # tokens per decode, all with logits: 78 MB of them for a vocabulary of 152,000
_SLICE = 32  # rows compared at a time


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Loss of one file. ``mean_kl`` is KL(source || file) in nats per token; ``perplexity_change`` 0.01 is +1 %."""

    path: str
    mean_kl: float
    same_top: float
    perplexity_change: float
    tokens: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    done: int
    total: int


@functools.cache
def held_text() -> str:
    return Path(__file__).with_name("held_text.txt").read_text("utf-8")


class Sums:
    """Running sums for one file. Pure."""

    def __init__(self) -> None:
        self.tokens = 0
        self._kl = 0.0
        self._same = 0
        self._surprise = [0.0, 0.0]  # nats: of the source, of the file
        self._predicted = 0

    def add(self, source: Rows, other: Rows, following: npt.NDArray[np.int32]) -> None:
        """``source`` and ``other``: log-probabilities (positions, vocabulary); ``following``: the text's next tokens,
        which may be one fewer than the positions."""
        self.tokens += len(source)
        self._kl += float((np.exp(source) * (source - other)).sum(dtype=np.float64))
        self._same += int((source.argmax(axis=1) == other.argmax(axis=1)).sum())
        places = np.arange(len(following))
        self._predicted += len(following)
        for number, rows in enumerate((source, other)):
            self._surprise[number] -= float(rows[places, following].sum(dtype=np.float64))

    def found(self, path: Path) -> Found:
        change = np.exp((self._surprise[1] - self._surprise[0]) / self._predicted) - 1
        return Found(
            path=str(path),
            mean_kl=self._kl / self.tokens,
            same_top=self._same / self.tokens,
            perplexity_change=float(change),
            tokens=self.tokens,
        )


def compare(source: Path, others: Sequence[Path], *, threads: int) -> Iterator[Step | Found]:
    """Progress, then one :class:`Found` for each of ``others``.

    Raises:
        ModelFileError, EngineError: a file does not load, or the vocabularies differ.
    """
    shape = Shape(context=WINDOW, threads=threads, batch=_BATCH, outputs=_BATCH)
    models = [Llama(path, shape) for path in (source, *others)]
    if len({model.width for model in models}) != 1:
        raise EngineError(f"{source} and the files made from it have different vocabularies; make them again")
    tokens = models[0].vocabulary.tokens(held_text())
    if len(tokens) < WINDOW * WINDOWS:
        raise EngineError(f"the held text has {len(tokens)} tokens for this model; {WINDOW * WINDOWS} are needed")
    sums = [Sums() for _ in others]
    for window in range(WINDOWS):
        part = tokens[window * WINDOW : (window + 1) * WINDOW]
        for model in models:
            model.forget(-1, 0)
        for start in range(0, WINDOW, _BATCH):
            for model in models:
                model.decode(part[start : start + _BATCH], start, outputs=_BATCH)
            for first in range(0, _BATCH, _SLICE):
                place = start + first
                following = np.array(part[place + 1 : place + 1 + _SLICE], np.int32)
                wanted = _rows(models[0], first)
                for model, total in zip(models[1:], sums, strict=True):
                    total.add(wanted, _rows(model, first), following)
        yield Step(done=window + 1, total=WINDOWS)
    for path, total in zip(others, sums, strict=True):
        yield total.found(path)
    for model in models:
        model.close()


def _rows(model: Llama, first: int) -> Rows:
    return log_softmax(np.stack([model.logits(row) for row in range(first, first + _SLICE)]))


def main() -> int:
    arguments = argparse.ArgumentParser(prog="edge_runtime.engine.loss")
    arguments.add_argument("source", type=Path)
    arguments.add_argument("others", type=Path, nargs="+")
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = arguments.parse_args()
    os.environ["GGML_NO_BACKTRACE"] = "1"
    try:
        for line in compare(asked.source, asked.others, threads=asked.threads):
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

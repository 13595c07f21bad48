"""The bare loop, in a process of its own: ``llama_decode`` and a greedy argmax over NumPy, and nothing else.

It is what any engine on the same build, weights and threads could reach: one unified KV cache, prompts in batches of
llama.cpp's own default, one row a sequence and step. It also cuts texts that have an exact number of tokens.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

BATCH = 512  # llama.cpp's default n_ubatch
_TRIES = 40


class Loop:
    """One model and one context; ``run`` generates."""

    def __init__(self, path: str, *, context: int, threads: int, sequences: int) -> None:
        from edge_runtime.engine.llama import Vocabulary, binding

        self._c = c = binding()
        settings = c.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = c.llama_model_load_from_file(path.encode(), settings)
        options = c.llama_context_default_params()
        options.n_ctx = context
        options.n_batch = options.n_ubatch = BATCH
        options.n_seq_max = sequences
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        self._context = c.llama_init_from_model(self._model, options)
        if not self._context:
            raise RuntimeError(f"no context of {context} tokens for {path}")
        self._memory = c.llama_get_memory(self._context)
        self.vocabulary = Vocabulary(self._model)
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "token": np.zeros(BATCH, np.int32),
            "pos": np.zeros(BATCH, np.int32),
            "n_seq_id": np.ones(BATCH, np.int32),
            "logits": np.zeros(BATCH, np.int8),
        }
        self._sequences = np.zeros(BATCH, np.int32)
        offsets = self._sequences.itemsize * np.arange(BATCH)
        self._arrays["seq_id"] = (self._sequences.ctypes.data + offsets).astype(np.uintp)
        self._batch = c.llama_batch()
        kinds = dict(c.llama_batch._fields_)
        for name, array in self._arrays.items():
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def run(self, prompts: Sequence[str], tokens: int, seconds: float = 3600.0) -> dict[str, Any]:
        """Read all prompts, then write one token of each a step; ends early after ``seconds`` of steps."""
        read = [self.vocabulary.tokens(prompt) for prompt in prompts]
        self._c.llama_memory_clear(self._memory, True)
        began = time.perf_counter()
        heads = self._read(read)
        first = time.perf_counter()
        times = [first]
        positions = np.array([len(prompt) for prompt in read], np.int32)
        count = len(read)
        arrays = self._arrays
        arrays["logits"][:count] = 1
        self._sequences[:count] = np.arange(count)
        while len(times) < tokens and times[-1] - first < seconds:
            arrays["token"][:count] = heads
            arrays["pos"][:count] = positions
            self._decode(count)
            heads = [self._best(row) for row in range(count)]
            positions += 1
            times.append(time.perf_counter())
        return {
            "tokens": len(times) * count,
            "seconds": times[-1] - began,
            "prefill_s": first - began,
            "steps_s": times[-1] - first,
            "longest_s": float(np.diff(times).max()) if len(times) > 1 else 0.0,
        }

    def _read(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """The prompts one after the other, packed into full batches; the first token of each."""
        rows = [
            (token, place, number, place == len(prompt) - 1)
            for number, prompt in enumerate(prompts)
            for place, token in enumerate(prompt)
        ]
        heads = [0] * len(prompts)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            columns = list(zip(*part, strict=True))
            for name, column in zip(("token", "pos"), columns[:2], strict=True):
                self._arrays[name][: len(part)] = column
            self._sequences[: len(part)] = columns[2]
            self._arrays["logits"][: len(part)] = columns[3]
            self._decode(len(part))
            for row, (_, _, number, is_last) in enumerate(part):
                if is_last:
                    heads[number] = self._best(row)
        return heads

    def _decode(self, count: int) -> None:
        self._batch.n_tokens = count
        if self._c.llama_decode(self._context, self._batch) != 0:
            raise RuntimeError(f"llama_decode refused {count} rows")

    def _best(self, row: int) -> int:
        logits = self._c.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary.width,)).argmax())

    def text(self, seed: int, tokens: int, start: str) -> str:
        """Sentences of the sample documents in an order of ``seed``, after ``start``: exactly ``tokens`` tokens."""
        sentences = _sentences()
        random.Random(seed).shuffle(sentences)
        cut = self.vocabulary.tokens(start + " ".join(sentences))
        while len(cut) < tokens + _TRIES:
            cut += self.vocabulary.tokens(" " + " ".join(sentences), bos=False)
        skip = int(self.vocabulary.adds_bos)
        for length in sorted(range(tokens - _TRIES, tokens + _TRIES), key=lambda length: abs(length - tokens)):
            pieces = b"".join(self.vocabulary.piece(token, special=True) for token in cut[skip : max(length, 1)])
            found = pieces.decode("utf-8", "ignore")
            if len(self.vocabulary.tokens(found)) == tokens:
                return found
        raise RuntimeError(f"no text of {tokens} tokens was found")


def _sentences() -> list[str]:
    from benchmarks import questions

    text = "\n".join(body.decode() for name, body in questions.samples()[0].items() if not name.endswith(".pdf"))
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if len(part.strip()) > 20]


class Bare:
    """``with Bare(...) as bare``: the loop in a child process, with an environment of its own for OpenMP."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        sequences: int = 8,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-P", "-m", "benchmarks.bare"]
        self._settings = {"path": str(path), "context": context, "threads": threads, "sequences": sequences}
        self._environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **(environment or {})}
        self._child: subprocess.Popen[str] | None = None
        self.load_s = 0.0  # from starting the interpreter to a loaded model

    def __enter__(self) -> Self:
        began = time.perf_counter()
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )
        self._ask(self._settings)
        self.load_s = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()

    def run(self, prompts: Sequence[str], tokens: int, seconds: float = 3600.0) -> dict[str, Any]:
        """As :meth:`Loop.run`."""
        told: dict[str, Any] = self._ask({"prompts": list(prompts), "tokens": tokens, "seconds": seconds})
        return told

    def text(self, seed: int, tokens: int, start: str = "") -> str:
        """As :meth:`Loop.text`."""
        return str(self._ask({"seed": seed, "tokens": tokens, "start": start}))

    def _ask(self, message: Mapping[str, Any]) -> Any:
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(message) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the bare loop ended with {self._child.wait()}")
        return json.loads(line)


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")  # nothing that a library prints gets between
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    loop = Loop(**json.loads(sys.stdin.readline()))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        told = loop.run(**asked) if "prompts" in asked else loop.text(**asked)
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""How long from ``edged`` to ready, and how much memory? With the small writer, on a fresh EDGE_HOME each time.

Beside it, as the floor, the same weights loaded by llama-cpp-python alone in a fresh interpreter until its first token.
Files are in the page cache in both cases: what is measured is the start, not the disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import questions
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.machine import describe
from edge_runtime.config import EngineConfig
from edge_runtime.paths import Paths
from models.store import Store

READY_BAR_S = 2.0
IDLE_SECONDS = 3.0
ANSWERS = 10
_ALONE = "from llama_cpp import Llama; Llama({path!r}, n_ctx={context}, verbose=False)('The', max_tokens=1)"


def measure_start(writer: str, runs: int) -> list[float]:
    """Seconds from starting ``edged`` to the first 200 of /readyz."""
    seconds = []
    for _ in range(runs):
        with Box(writer) as box:
            seconds.append(box.ready_s)
    return seconds


def measure_memory(writer: str) -> dict[str, dict[str, float]]:
    """MiB of PSS per process: idle without documents, then after ten answers about the samples."""
    documents, asked = questions.samples()
    with Box(writer) as box, box.client() as client:
        time.sleep(IDLE_SECONDS)
        idle = box.resident_bytes()
        box.add(documents)
        for question in [question for question in asked if question.is_answerable][:ANSWERS]:
            client.ask(question.text)
        used = box.resident_bytes()
    return {"idle": _mebibytes(idle), f"after_{ANSWERS}_answers": _mebibytes(used)}


def measure_alone(writer: str, runs: int) -> list[float]:
    """Seconds until llama-cpp-python alone has its first token from the same weights."""
    path = str(Store(Paths.from_environment().models, quota_bytes=2**60).writer_path(writer))
    command = [sys.executable, "-c", _ALONE.format(path=path, context=EngineConfig().context)]
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return seconds


def _mebibytes(sizes: dict[str, int]) -> dict[str, float]:
    return {name: round(size / 2**20, 1) for name, size in sizes.items()}


def _told(seconds: list[float]) -> dict[str, Any]:
    return {"median_s": round(statistics.median(seconds), 3), "runs_s": [round(value, 3) for value in seconds]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--writer", default=SMALL_WRITER)
    arguments.add_argument("--runs", type=int, default=7)
    given = arguments.parse_args()
    result = {
        "machine": describe(),
        "writer": given.writer,
        "ready_bar_s": READY_BAR_S,
        "ready": _told(measure_start(given.writer, given.runs)),
        "llama_cpp_alone": _told(measure_alone(given.writer, given.runs)),
        "pss_mib": measure_memory(given.writer),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

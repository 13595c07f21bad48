"""Does the vector scan hold its bars, and is it faster than usearch, FAISS, LanceDB and Chroma at the same recall?

The vectors are those of ``benchmarks.corpus``. Each engine runs alone in a process of its own, over the same files;
ours comes first and last, and its slower reading counts. Peers are those that ``make bench-peers`` brought.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import corpus, machine, peers_install, scan_peers

BARS = {100_000: 4.0, 1_000_000: 40.0}  # p95 in milliseconds by number of vectors
_COMPARED = 100_000
_PACKAGES = {"usearch": "usearch", "faiss": "faiss", "lancedb": "lancedb", "chroma": "chromadb"}


def installed() -> list[str]:
    """Peers that can be compared with."""
    packages = peers_install.HOME.glob("lib/python*/site-packages/*")
    names = {path.name for path in packages}
    return [peer for peer, package in _PACKAGES.items() if package in names]


def measure(peer: str, work: Path) -> dict[str, Any]:
    """Build and search ``peer`` over what lies in ``work``."""
    own = peer == "ours"
    start = [sys.executable, "-m", "benchmarks.scan_ours"] if own else [
        str(peers_install.HOME / "bin" / "python"), str(Path(scan_peers.__file__))
    ]  # fmt: skip
    result: dict[str, Any] = {}
    for step in ("build", "search"):
        print(f"{peer}: {step}", file=sys.stderr)
        done = subprocess.run(
            [*start, step, peer, str(work)],
            stdout=subprocess.PIPE,
            check=False,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
        )
        if done.returncode:
            return {"failed": f"{step} ended with {done.returncode}"}
        result |= json.loads(done.stdout.splitlines()[-1])
    return result


def prepare(cache: Path, count: int, *, sigma: float = corpus.SIGMA, quick: bool = False) -> Path:
    """The directory with ``count`` vectors, the queries and their true neighbours; made where it is not there."""
    work = cache / f"scan-{count}-{sigma}{'-quick' if quick else ''}"
    if not (work / "truth.npy").exists():
        texts = corpus.Corpus.load(cache, quick=quick)
        work.mkdir(parents=True, exist_ok=True)
        vectors = corpus.jittered(texts.rows, count, sigma=sigma)
        np.save(work / "vectors.npy", vectors)
        np.save(work / "queries.npy", texts.held)
        np.save(work / "truth.npy", corpus.truth(vectors, texts.held, scan_peers.K))
    return work


def verdicts(count: int, found: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Which bars hold."""
    ours = found["ours"]
    held = {"recall": ours["recall"] >= scan_peers.RECALL, "p95": ours["p95_ms"] <= BARS.get(count, float("inf"))}
    for peer, figures in found.items():
        if peer not in ("ours", "again") and "failed" not in figures:
            slower = max(ours["p50_ms"], found["again"]["p50_ms"])
            held[f"faster than {peer}"] = figures["recall"] < scan_peers.RECALL or slower < figures["p50_ms"]
    return held


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="where vectors and the engines' files are kept")
    parser.add_argument("--count", type=int, action="append", help="vectors; can be given again (100000 and 1000000)")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args(argv)
    result: dict[str, Any] = {}
    good = True
    for count in options.count or list(BARS):
        work = prepare(options.scratch, count)
        found = {"ours": measure("ours", work)}
        if count == _COMPARED and not options.no_peers:
            found |= {peer: measure(peer, work) for peer in installed()}
            found["again"] = measure("ours", work)
        held = verdicts(count, found) if "failed" not in found["ours"] else {"ran": False}
        good = good and all(held.values())
        result[str(count)] = {"engines": found, "held": held}
        for name, figures in found.items():
            print(f"{count:>9,} {name:8} {json.dumps(figures)}", file=sys.stderr)
    print(json.dumps({"machine": machine.describe(), "scan": result}, indent=2))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

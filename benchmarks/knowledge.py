"""Knowledge's bars in one run: each scenario is a row or more of one table, and of the JSON.

``python -m benchmarks.knowledge [--data DIR] [--cache DIR] [--only NAME,...] [--quick]``; what it is compared with is
there after ``make bench-peers``, and DIR holds ``squad2_normans.json``. The first run embeds for many minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.knowledge_stage import Scenario, Stand
from benchmarks.machine import describe
from benchmarks.scenarios_ingest import churn, precision, readers, throughput
from benchmarks.scenarios_retrieval import answers, pages, squad
from benchmarks.scenarios_search import peers, scan_large, scan_million, search
from benchmarks.stage import Outcome, Row

SCENARIOS: dict[str, Scenario] = {
    "search": search,
    "scan": scan_large,
    "scan-million": scan_million,
    "peers": peers,
    "ingest": throughput,
    "precision": precision,
    "hybrid-squad": squad,
    "hybrid-pages": pages,
    "answers": answers,
    "churn": churn,
    "readers": readers,
}
CACHE = Path(__file__).with_name("results") / "cache"


def perform(stand: Stand, name: str) -> tuple[Outcome, float]:
    """One scenario and the seconds that it took; one that cannot be measured is a row that says why."""
    began = time.perf_counter()
    try:
        outcome = SCENARIOS[name](stand)
    except Exception as error:  # noqa: BLE001 - the other scenarios are still worth their run
        cause = f"{type(error).__name__}: {error}".splitlines()
        outcome = Outcome([Row(name, "", f"not measured: {cause[0]}", holds=False)], {"failed": "\n".join(cause)})
    return outcome, time.perf_counter() - began


def show(row: Row) -> None:
    verdict = {True: "holds", False: "MISSED", None: ""}[row.holds]
    print(f"{row.name:62s} {row.bar:>9s}  {verdict:7s} {row.figure}", file=sys.stderr, flush=True)


def _given() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", help=f"some of: {', '.join(SCENARIOS)}")
    arguments.add_argument("--data", type=Path, help="the folder of squad2_normans.json")
    arguments.add_argument("--cache", type=Path, default=CACHE, help="texts, vectors and indexes are kept here")
    arguments.add_argument("--quick", action="store_true", help="fewer vectors, fewer documents, fewer repetitions")
    given = arguments.parse_args()
    given.names = [name for name in given.only.split(",") if name] or list(SCENARIOS)
    if unknown := set(given.names) - set(SCENARIOS):
        arguments.error(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return given


def main() -> None:
    given = _given()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edge-benchmark-knowledge-") as scratch:
        stand = Stand(given.cache, Path(scratch), given.data, quick=given.quick)
        for name in given.names:
            outcome, seconds = perform(stand, name)
            found[name] = {"seconds": round(seconds, 1), "rows": outcome.rows, **outcome.figures}
            for row in outcome.rows:
                show(row)
    print(json.dumps({"machine": describe(), "quick": given.quick, **found}, default=_plain))


def _plain(value: object) -> object:
    return [value.name, value.bar, value.figure, value.holds] if isinstance(value, Row) else str(value)


if __name__ == "__main__":
    main()

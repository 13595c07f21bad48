"""The engine's bars, side by side in one run: each scenario is a row or more of one table, and of the JSON.

``python -m benchmarks.engine [--only NAME,...] [--writer NAME] [--quick]``; peers are there after ``make bench-peers``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.answer import installed
from benchmarks.machine import describe
from benchmarks.scenarios_faults import cancel, killed_engine, overload
from benchmarks.scenarios_neighbours import busy_neighbours, embeddings
from benchmarks.scenarios_pacing import long_prompt
from benchmarks.scenarios_prefix import first_token, together
from benchmarks.scenarios_speed import eight_streams, full_tree, one_stream
from benchmarks.scenarios_structure import structure
from benchmarks.stage import HEADROOM, Outcome, Row, Scenario, Stage
from edge_runtime.config import ModelsConfig

SCENARIOS: dict[str, Scenario] = {
    "one-stream": one_stream,
    "eight-streams": eight_streams,
    "full-tree": full_tree,
    "first-token": first_token,
    "together": together,
    "long-prompt": long_prompt,
    "neighbours": busy_neighbours,
    "embeddings": embeddings,
    "overload": overload,
    "cancel": cancel,
    "killed-engine": killed_engine,
    "structure": structure,
}
_MIB = 2**20


def perform(stage: Stage, name: str) -> tuple[Outcome, float]:
    """One scenario and the seconds that it took; one that cannot be measured is a row that says why."""
    began = time.perf_counter()
    try:
        outcome = asyncio.run(SCENARIOS[name](stage))
    except Exception as error:  # noqa: BLE001 - the other scenarios are still worth their run
        cause = f"{type(error).__name__}: {error}".splitlines()
        outcome = Outcome([Row(name, "", f"not measured: {cause[0]}", holds=False)], {"failed": "\n".join(cause)})
    return outcome, time.perf_counter() - began


def memory(stage: Stage) -> Outcome:
    """The highest PSS of a box in any scenario against the budget that it was given."""
    told = stage.memory
    sizes = {name: round(size / _MIB, 1) for name, size in told.highest.items()}
    idle = {name: round(size / _MIB, 1) for name, size in stage.idle.items()}
    figures = {"idle_mib": idle, "highest_mib": sizes, "budget_mib": stage.budget / _MIB, "samples": told.samples}
    note = f" (idle {idle['total']:.0f} MiB, {told.samples} samples)"
    bar = round(stage.budget / _MIB)
    row = Row.most("PSS of a box, highest of all runs", sizes.get("total", 0.0), bar, " MiB", note)
    return Outcome([row], figures)


def show(row: Row) -> None:
    verdict = {True: "holds", False: "MISSED", None: ""}[row.holds]
    print(f"{row.name:58s} {row.bar:>12s}  {verdict:7s} {row.figure}", file=sys.stderr, flush=True)


def _given() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", help=f"some of: {', '.join(SCENARIOS)}")
    arguments.add_argument("--writer", default=ModelsConfig().writer)
    arguments.add_argument("--quick", action="store_true", help="fewer repetitions, fewer points")
    given = arguments.parse_args()
    given.names = [name for name in given.only.split(",") if name] or list(SCENARIOS)
    if unknown := set(given.names) - set(SCENARIOS):
        arguments.error(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if not installed((given.writer,)):
        arguments.error(
            f"the writer {given.writer} is not here; fetch it with: edge-firmware setup --writer {given.writer}"
        )
    return given


def main() -> None:
    given = _given()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edge-benchmark-weights-") as scratch:
        stage = Stage(given.writer, quick=given.quick, peers=peers.installed(), scratch=Path(scratch))
        print(
            f"{given.writer}, {stage.cores} cores; peers: {', '.join(stage.peers) or 'none (make bench-peers)'}; "
            f"budget: idle + {HEADROOM // _MIB} MiB",
            file=sys.stderr,
        )
        try:
            stage.measure_idle()
            for name in given.names:
                outcome, seconds = perform(stage, name)
                found[name] = {"seconds": round(seconds, 1), "rows": outcome.rows, **outcome.figures}
                found[name]["highest_pss"] = dict(stage.memory.highest)
                for row in outcome.rows:
                    show(row)
            outcome = memory(stage)
            found["memory"] = {"rows": outcome.rows, **outcome.figures}
            for row in outcome.rows:
                show(row)
        finally:
            stage.close()
    result = {"machine": describe(), "writer": given.writer, "quick": given.quick, "peers": stage.peers, **found}
    print(json.dumps(result, default=_plain))


def _plain(value: object) -> object:
    return [value.name, value.bar, value.figure, value.holds] if isinstance(value, Row) else str(value)


if __name__ == "__main__":
    main()

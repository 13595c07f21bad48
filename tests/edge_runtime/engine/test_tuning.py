"""Tuning as a real process over a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.store import Store
from tests.edge_runtime.cli.golden import compare

_WRITER = "smollm2-135m-instruct"


def _command(home: Path, *arguments: str) -> list[str]:
    module = [sys.executable, "-P", "-m", "edge_runtime.engine.tuning"]
    return [*module, *arguments, "--store", str(home / "models"), "--json", "--threads", "1"]


def _run(home: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(_command(home, *arguments), capture_output=True, text=True)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def _edge(home: Path, *arguments: str) -> Any:
    """What ``edge`` writes to stdout as JSON, on one core: several tests may share this machine."""
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-m", "edge_runtime.cli"]
    world = {**os.environ, "EDGE_HOME": str(home)}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=world)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _masked(table: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between machines: speeds, and which of the allowed forms they choose."""
    rows = []
    for row in table["rows"]:
        speed = row["speed"] and dict.fromkeys(row["speed"], "TOKENS A SECOND")
        rows.append({**row, "speed": speed, "workload_ms": row["workload_ms"] and "MILLISECONDS"})
        if row["verdict"] != "refused":
            rows[-1] |= {"verdict": "VERDICT", "reason": "REASON"}
    return {**table, "chosen": "FORMAT", "rows": rows}


def test_a_first_run_makes_only_what_may_be_chosen_and_the_store_runs_from_the_choice(edge_home: Path) -> None:
    table = _edge(edge_home, "model", "tune", _WRITER, "--json")
    compare("model_tune", _masked(table))
    rows = {row["format"]: row for row in table["rows"]}
    assert set(rows) == {"Q4_1", "Q8_0", "Q4_K_M", "IQ4_NL", "Q4_0"}
    for name in ("Q4_K_M", "IQ4_NL", "Q4_0"):
        # Their recorded loss is over the limit: known without making them.
        assert (rows[name]["verdict"], rows[name]["size"]) == ("refused", None)
        assert rows[name]["lost"]["mean_kl"] > 0.02
    assert rows["Q8_0"]["lost"]["mean_kl"] <= 0.02
    assert all(rows[name]["speed"]["decode_8"] > 0 for name in ("Q4_1", "Q8_0"))
    store = Store(edge_home / "models", 2**60)
    record = store.tuned(_WRITER)
    assert record is not None
    assert record.format == table["chosen"]
    assert store.writer_path(_WRITER).stat().st_size == rows[table["chosen"]]["size"]
    assert not list((edge_home / "models" / "partial").glob(f"{_WRITER}+*"))
    again = _edge(edge_home, "model", "tune", _WRITER, "--if-needed", "--json")
    assert (again["event"], again["chosen"]) == ("tuned", table["chosen"])


def test_a_run_that_is_killed_leaves_the_store_as_it_was(edge_home: Path) -> None:
    store = Store(edge_home / "models", 2**60)
    before = store.writer_path(_WRITER)
    with subprocess.Popen(_command(edge_home, _WRITER), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = (json.loads(line) for line in process.stdout)
        # A busy machine is told of first.
        assert next(line for line in told if line["event"] == "progress")["stage"] == "quantise"
        process.send_signal(signal.SIGKILL)
    assert store.writer_path(_WRITER) == before
    assert all(finding.problem is None for finding in store.verify(_WRITER))


def test_what_is_no_writer_or_not_installed_is_refused_with_a_sentence(edge_home: Path) -> None:
    code, lines = _run(edge_home, "all-minilm-l6-v2-int8")
    assert (code, "only writers" in lines[-1]["message"]) == (1, True)
    code, lines = _run(edge_home, "nothing-of-the-kind")
    assert (code, lines[-1]["event"]) == (1, "error")

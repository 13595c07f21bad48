"""``edge model tune``: which form of a writer is fastest on this machine without losing too much; measured by a process
of its own (``edge_runtime.engine.tuning``), shown here."""

from __future__ import annotations

import sys
from typing import Any

import click

from edge_runtime.cli import tools
from edge_runtime.cli.output import put, put_json, say, table
from edge_runtime.errors import ModelFileError
from edge_runtime.paths import Paths

_MEASURE = [sys.executable, "-P", "-m", "edge_runtime.engine.tuning"]
_HEAD = ("format", "MB", "prefill", "decode", "at 8", "mean KL", "same top", "perplexity", "verdict")


def rows_of(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of the table, from the ``table`` event; ``-`` where something was not measured."""
    return [_cells(row) for row in measured["rows"]]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    speed, lost = row.get("speed"), row.get("lost")
    rates = [f"{speed[key]:.0f}" for key in ("prefill", "decode", "decode_8")] if speed else ["-"] * 3
    losses = ["-"] * 3
    if lost and not row["source"]:
        losses = [f"{lost['mean_kl']:.4f}", f"{lost['same_top']:.3f}", f"{lost['perplexity_change']:+.1%}"]
    name = f"{row['format']} (source)" if row["source"] else str(row["format"])
    size = f"{row['size'] / 1e6:.0f}" if row.get("size") else "-"
    return (name, size, *rates, *losses, f"{row['verdict']}: {row['reason']}")


@click.command(short_help="Measure the forms of a writer here, and keep the best.")
@click.argument("name")
@click.option("--max-kl", type=click.FloatRange(min=0), help="Mean KL allowed, nats per token.  [default: 0.02]")
@click.option("--all", "everything", is_flag=True, help="Measure forms too that are known to lose too much.")
@click.option("--if-needed", is_flag=True, help="Do nothing where it was tuned on this machine already.")
@click.option("--json", "as_json", is_flag=True, help="The table as JSON.")
def tune(*, name: str, max_kl: float | None, everything: bool, if_needed: bool, as_json: bool) -> None:
    """Measure the forms of a writer on this machine, and run it in the fastest that loses little.

    Speeds are tokens a second: of a prompt, of one answer, of eight at once. The loss is against the file as shipped.
    A daemon that runs takes up the choice when it starts next.

    \b
    Example:
      edge model tune smollm2-135m-instruct
    """
    store = Paths.from_environment().models
    command = [*_MEASURE, name, "--store", str(store), "--json"]
    command += ["--max-kl", str(max_kl)] if max_kl is not None else []
    command += ["--all"] if everything else []
    command += ["--if-needed"] if if_needed else []
    told = tools.run_lines(command, unit="")
    measured = next((event for event in told if event.get("event") == "table"), None)
    already = next((event for event in told if event.get("event") == "tuned"), None)
    if as_json and (measured or already):
        put_json(measured or already)
    elif measured:
        for line in table(_HEAD, rows_of(measured), shrink=len(_HEAD) - 1):
            put(line)
        say(f"{name} runs as {measured['chosen']} from now on; a daemon that runs takes it up when it starts next")
    elif already:
        say(f"{name} was tuned on this machine already and runs as {already['chosen']}")
    else:
        raise ModelFileError(f"tuning {name} ended without a result; try again, and look at: edge model verify {name}")

"""How a tuning run speaks: prose and a table for people, or one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from edge_runtime.engine.formats import ANSWER_TOKENS, PROMPT_TOKENS, Row

_DOING = {"quantise": "making", "loss": "measuring the loss of", "speed": "measuring the speed of"}
_STYLES = {"chosen": "bold green", "refused": "red", "failed": "red", "allowed": ""}


class Output(Protocol):
    def step(self, stage: str, subject: str, done: int = 0, total: int = 0) -> None: ...
    def table(self, name: str, rows: Sequence[Row], limit: float) -> None: ...
    def already(self, name: str, file_format: str) -> None: ...
    def note(self, text: str) -> None: ...
    def failed(self, message: str) -> None: ...


class Json:
    """Objects with ``event`` progress, note, table, tuned or error; an error is said on stderr too."""

    def step(self, stage: str, subject: str, done: int = 0, total: int = 0) -> None:
        told = {"event": "progress", "task": f"{_DOING[stage]} {subject}", "stage": stage, "format": subject}
        self._write({**told, "done": done, "total": total})

    def table(self, name: str, rows: Sequence[Row], limit: float) -> None:
        chosen = next(row.format for row in rows if row.verdict == "chosen")
        workload = {"prompt_tokens": PROMPT_TOKENS, "answer_tokens": ANSWER_TOKENS}
        told = {"event": "table", "name": name, "limit": limit, "workload": workload, "chosen": chosen}
        self._write({**told, "rows": list(rows)})

    def note(self, text: str) -> None:
        self._write({"event": "note", "text": text})

    def already(self, name: str, file_format: str) -> None:
        self._write({"event": "tuned", "name": name, "chosen": file_format})

    def failed(self, message: str) -> None:
        self._write({"event": "error", "message": message})
        sys.stderr.write(f"{message}\n")

    def _write(self, told: dict[str, object]) -> None:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()


class Prose:
    """Progress on stderr, the table on stdout."""

    def __init__(self) -> None:
        self._progress = Console(stderr=True, highlight=False)
        self._last = ""

    def step(self, stage: str, subject: str, done: int = 0, total: int = 0) -> None:
        said = f"{_DOING[stage]} {subject}"
        if self._progress.is_terminal:
            self._progress.print(f"{said} {done}/{total}" if total else said, style="dim")
        elif said != self._last:
            self._progress.print(said)
        self._last = said

    def note(self, text: str) -> None:
        self._progress.print(text, soft_wrap=True)

    def table(self, name: str, rows: Sequence[Row], limit: float) -> None:
        console = Console(highlight=False)
        shown = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
        for heading in ("format", "MB", "prefill", "decode", "at 8", "ms", "mean KL", "top", "perpl.", "verdict"):
            shown.add_column(heading, justify="left" if heading in {"format", "verdict"} else "right", no_wrap=True)
        for row in rows:
            shown.add_row(*_cells(row), style=_STYLES[row.verdict])
        console.print(f"{name} on this machine", style="bold")
        console.print(shown)
        for row in rows:
            if row.verdict in {"chosen", "refused", "failed"}:
                console.print(f"{row.verdict}: {row.format}, {row.reason}", soft_wrap=True)
        console.print(
            f"prefill, decode: tokens a second; ms: {PROMPT_TOKENS} tokens read and {ANSWER_TOKENS} written; mean KL "
            f"(limit {limit:g}), same top token and perplexity against the source on held text; -: not made",
            soft_wrap=True,
            style="dim",
        )

    def already(self, name: str, file_format: str) -> None:
        self._progress.print(f"{name} was tuned on this machine already and runs as {file_format}")

    def failed(self, message: str) -> None:
        self._progress.print(message, soft_wrap=True)


def _cells(row: Row) -> list[str]:
    speed = ["-"] * 3
    if row.speed is not None:
        speed = [f"{value:.0f}" for value in (row.speed.prefill, row.speed.decode, row.speed.decode_8)]
    lost = ["-"] * 3
    if row.lost is not None and not row.source:
        lost = [f"{row.lost.mean_kl:.4f}", f"{row.lost.same_top:.3f}", f"{row.lost.perplexity_change:+.1%}"]
    return [
        f"{row.format} source" if row.source else row.format,
        f"{row.size / 1e6:.0f}" if row.size else "-",
        *speed,
        f"{row.workload_ms:.0f}" if row.workload_ms else "-",
        *lost,
        row.verdict,
    ]

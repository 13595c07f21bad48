"""How long work shows that it goes on: bars at a terminal, lines elsewhere, JSON lines for a program."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

Unit = Literal["bytes", "steps"]


class Display(Protocol):
    """Told of progress from any thread."""

    def step(self, task: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        """``done`` of ``total`` (None: not known) of the work called ``task``."""

    def note(self, text: str) -> None:
        """A sentence for the person who waits."""

    def tell(self, event: str, **fields: object) -> None:
        """A fact for the program that reads the JSON lines."""


@contextmanager
def display(*, as_json: bool) -> Iterator[Display]:
    """The display that suits standard error, or JSON lines on standard output."""
    if as_json:
        yield JsonLines()
    elif sys.stderr.isatty():
        bars = Bars(Console(stderr=True))
        with bars.progress:
            yield bars
    else:
        yield Lines()


class Lines:
    """Lines on standard error: one per tenth of a task, and none within a second of the one before it but the last."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()

    def step(self, task: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        # Where the whole is not known, every 100 MB stands for a tenth.
        tenth = done * 10 // total if total else done // 100_000_000
        with self._lock:
            now = time.monotonic()
            soon = now < self._shown.get(task, 0.0) + 1.0 and done != total
            if tenth <= self._tenths.get(task, -1) or soon:
                return
            self._tenths[task], self._shown[task] = tenth, now
        share = f"{min(tenth, 10) * 10:3d} %" if total else ""
        self.note(f"{task}: {share} {_amount(done, total, unit)}".rstrip())

    def note(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def tell(self, event: str, **fields: object) -> None:
        pass


class Bars:
    """Rich progress bars."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def step(self, task: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        with self._lock:
            if task not in self._tasks:
                self._tasks[task] = self.progress.add_task(task, total=total, amount="")
        self.progress.update(self._tasks[task], completed=done, total=total, amount=_amount(done, total, unit))

    def note(self, text: str) -> None:
        self.progress.console.print(Text(text))

    def tell(self, event: str, **fields: object) -> None:
        pass


class JsonLines:
    """One JSON object a line on standard output; notes are repeated on standard error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hundredths: dict[str, int] = {}

    def step(self, task: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        hundredth = done * 100 // total if total else done // 1_000_000
        with self._lock:
            if hundredth <= self._hundredths.get(task, -1):
                return
            self._hundredths[task] = hundredth
        self.tell("progress", file=task, done=done, total=total, unit=unit)

    def note(self, text: str) -> None:
        self.tell("note", text=text)
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def tell(self, event: str, **fields: object) -> None:
        with self._lock:
            sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
            sys.stdout.flush()


def _amount(done: int, total: int | None, unit: Unit) -> str:
    if unit == "steps":
        return f"{done}/{total}" if total else str(done)
    megabytes = f"{done / 1e6:.1f}"
    return f"{megabytes}/{total / 1e6:.1f} MB" if total else f"{megabytes} MB"

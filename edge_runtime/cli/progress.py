"""Progress on stderr: bars where stderr is a terminal, else one line for each tenth.

Rich is imported when a bar is drawn, and is handed plain text only, never markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from edge_runtime.cli.output import clean_line, say, size

if TYPE_CHECKING:
    import rich.progress


class Bars(Protocol):
    """Where a piece of work tells how far each of its tasks is."""

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        """``done`` of ``total`` (None: not known) of the task called ``task``; ``note`` is what is at hand now."""

    def say(self, text: str) -> None:
        """A line of talk, above the bars."""


class _Lines:
    """One line for each tenth of each task."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._tenths: dict[str, int] = {}
        self._began = time.monotonic()

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        del note
        tenth = int(10 * done / total) if total else 0
        if not total and task not in self._tenths:
            self._tenths[task] = 0
            say(clean_line(task))
        elif tenth > self._tenths.get(task, 0):
            self._tenths[task] = tenth
            speed = rate(done, time.monotonic() - self._began, self._unit)
            say(f"{clean_line(task)}: {tenth * 10} %{', ' if speed else ''}{speed}")

    def say(self, text: str) -> None:
        say(clean_line(text))


class _Drawn:
    """Bars drawn by rich."""

    def __init__(self, progress: rich.progress.Progress, unit: str) -> None:
        self._progress = progress
        self._unit = unit
        self._tasks: dict[str, tuple[rich.progress.TaskID, float]] = {}

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        now = time.monotonic()
        if task not in self._tasks:
            self._tasks[task] = (self._progress.add_task(clean_line(task), total=total, speed="", note=""), now)
        drawn, began = self._tasks[task]
        speed = rate(done, now - began, self._unit)
        self._progress.update(drawn, completed=done, total=total, speed=speed, note=clean_line(note))

    def say(self, text: str) -> None:
        self._progress.console.print(clean_line(text), markup=False, highlight=False)


def rate(done: float, seconds: float, unit: str) -> str:
    """``3.1 MiB/s`` where the unit is bytes, else ``12.0 files/s``; nothing without a unit."""
    if not unit:
        return ""
    per_second = done / max(seconds, 1e-3)
    return f"{size(per_second)}/s" if unit == "bytes" else f"{per_second:.1f} {unit}/s"


@contextmanager
def bars(unit: str) -> Iterator[Bars]:
    """Bars over tasks counted in ``unit``, shown for as long as the context lasts."""
    if not sys.stderr.isatty():
        yield _Lines(unit)
        return
    import rich.console  # noqa: PLC0415  only a terminal pays for it
    import rich.progress  # noqa: PLC0415
    import rich.table  # noqa: PLC0415

    console = rich.console.Console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[speed]}", markup=False),
        rich.progress.TextColumn(
            "{task.fields[note]}", markup=False, table_column=rich.table.Column(ratio=1, no_wrap=True)
        ),
    )
    with rich.progress.Progress(*columns, console=console, expand=True, transient=True) as progress:
        yield _Drawn(progress, unit)

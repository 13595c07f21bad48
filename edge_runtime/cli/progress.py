"""Progress on stderr: bars where stderr is a terminal, else one line for each tenth.

Rich is imported when a bar is drawn, and is handed plain text only, never markup.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_runtime.cli.output import clean_line, say, size

if TYPE_CHECKING:
    import rich.progress

_WINDOW_SECONDS = 30.0  # that a speed is taken over
_STEP_SECONDS = 0.5  # between marks that are kept


class Bars(Protocol):
    """Where a piece of work tells how far each of its tasks is."""

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        """``done`` of ``total`` (None: not known) of the task called ``task``; ``note`` is what is at hand now."""

    def say(self, text: str) -> None:
        """A line of talk, above the bars."""


@dataclass(slots=True)
class Speed:
    """How fast something goes now: over the last half minute, since files differ and what is there already goes by."""

    _marks: deque[tuple[float, float]] = field(default_factory=deque)  # seconds, how much was done by then

    def note(self, done: float, now: float) -> None:
        """So much is done ``now`` (seconds, of a clock that nobody sets)."""
        if len(self._marks) > 1 and now - self._marks[-2][0] < _STEP_SECONDS:
            self._marks.pop()
        self._marks.append((now, done))
        while now - self._marks[0][0] > _WINDOW_SECONDS and len(self._marks) > 2:
            self._marks.popleft()

    @property
    def per_second(self) -> float:
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        return max(last - first, 0.0) / max(ended - began, 1e-3)

    def seconds_left(self, total: float | None) -> float | None:
        """None where nothing moves, or nobody knows how much there is."""
        return max(total - self._marks[-1][1], 0.0) / self.per_second if total and self.per_second else None


class Silence:
    """Shows nothing but talk."""

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        say(clean_line(text))


class _Lines:
    """One line for each tenth of each task."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._tenths: dict[str, int] = {}
        self._speeds: dict[str, Speed] = {}

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        del note
        speed = self._speeds.setdefault(task, Speed())
        speed.note(done, time.monotonic())
        tenth = int(10 * done / total) if total else 0
        if not total and task not in self._tenths:
            self._tenths[task] = 0
            say(clean_line(task))
        elif tenth > self._tenths.get(task, 0):
            self._tenths[task] = tenth
            parts = [f"{tenth * 10} %", rate(speed.per_second, self._unit), remaining(speed.seconds_left(total))]
            say(f"{clean_line(task)}: {', '.join(filter(None, parts))}")

    def say(self, text: str) -> None:
        say(clean_line(text))


class _Drawn:
    """Bars drawn by rich."""

    def __init__(self, progress: rich.progress.Progress, unit: str) -> None:
        self._progress = progress
        self._unit = unit
        self._tasks: dict[str, tuple[rich.progress.TaskID, Speed]] = {}

    def update(self, task: str, done: float, total: float | None, note: str = "") -> None:
        if task not in self._tasks:
            self._tasks[task] = (self._progress.add_task(clean_line(task), total=total, speed="", note=""), Speed())
        drawn, speed = self._tasks[task]
        speed.note(done, time.monotonic())
        parts = (rate(speed.per_second, self._unit), remaining(speed.seconds_left(total)))
        told = "  ".join(filter(None, parts))
        self._progress.update(drawn, completed=done, total=total, speed=told, note=clean_line(note))

    def say(self, text: str) -> None:
        self._progress.console.print(clean_line(text), markup=False, highlight=False)


def rate(per_second: float, unit: str) -> str:
    """``3.1 MiB/s`` where the unit is bytes, else ``12.0 files/s``; nothing without a unit."""
    if not unit:
        return ""
    return f"{size(per_second)}/s" if unit == "bytes" else f"{per_second:.1f} {unit}/s"


def remaining(seconds: float | None) -> str:
    """``2 min left``; nothing where it cannot be told, or it is done."""
    if not seconds:
        return ""
    if seconds < 60:
        return f"{math.ceil(seconds)} s left"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min left" if minutes < 100 else f"{minutes / 60:.1f} h left"


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

"""Other programs of the project, run as processes of their own: they do what ``edge`` must not import.

Each writes JSON lines on stdout (``{"event": "progress" | "note" | "error" | ...}``), which become progress bars here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.cli import progress
from edge_runtime.cli.output import clean
from edge_runtime.errors import EdgeError

_TAIL = 8  # lines of a failed program's stderr that are shown


class ToolError(EdgeError):
    """A program of the project is missing, or failed."""

    code = "tool"


def beside_python(program: str) -> list[str]:
    """The command for a console script of this installation.

    Raises:
        ToolError: it is not installed beside this interpreter.
    """
    path = Path(sys.executable).parent / program
    if not path.exists():
        raise ToolError(f"{program} is not installed beside {sys.executable}\nset the project up again: make setup")
    return [str(path)]


def run_lines(command: Sequence[str], *, unit: str = "bytes") -> list[dict[str, Any]]:
    """Run ``command``, show its progress and notes, and return its other events in order.

    Raises:
        ToolError: it failed; the message is its own last word.
    """
    kept: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+", errors="replace") as talk, progress.bars(unit) as bars:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=talk, text=True, errors="replace") as process:
            try:
                for line in process.stdout or ():
                    event = _event(line)
                    match event.get("event"):
                        case "progress":
                            task = str(event.get("file") or event.get("task") or "")
                            bars.update(task, float(event.get("done") or 0), event.get("total") or None)
                        case "note":
                            bars.say(str(event.get("text", "")))
                        case _:
                            kept.append(event)
                code = process.wait()
            finally:
                stop(process)
        talk.seek(0)
        tail = talk.read().strip().splitlines()[-_TAIL:]
    if code:
        told = [str(event["message"]) for event in kept if event.get("event") == "error" and event.get("message")]
        raise ToolError(told[-1] if told else "\n".join([f"{Path(command[0]).name} ended with code {code}", *tail]))
    return kept


def _event(line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {"event": "note", "text": clean(line.strip())}


def stop(process: subprocess.Popen[Any], *, seconds: float = 15.0) -> None:
    """Ask a process to stop (SIGTERM), and end it (SIGKILL) where it has not after ``seconds``."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

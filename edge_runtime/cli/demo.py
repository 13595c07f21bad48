"""``edge demo``: a box at work on the sample documents, from a start that took seconds to the proof of its seal.

It starts ``edged`` where none runs on this home, and then stops it on leaving; one that runs already is used and left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

import edge_runtime
from edge_runtime import config
from edge_runtime.cli import checks, tools
from edge_runtime.cli.adding import Tally, Terms, add_files
from edge_runtime.cli.ask import AnswerView, note
from edge_runtime.cli.chat import converse
from edge_runtime.cli.output import clean, clean_line, paint, put, say, table
from edge_runtime.cli.walking import FoundFile, Total
from edge_runtime.client import AskEvent, SyncClient, connect_sync
from edge_runtime.errors import EdgeError, EngineError, ExitCode, SealError, UnreachableError
from edge_runtime.knowledge_protocol import Sentence
from edge_runtime.paths import Paths

_READY_SECONDS = 180.0  # loading half a gigabyte from a slow card
_FAILED_SECONDS = 4.0  # a part that has failed for as long, restarts or none, will not come up by itself
_SERVED = '"event": "request"'
_OPENING_SECONDS = 30.0  # with both models loaded only the index is left to open
_LOG_LINES = 12
_LOG_BYTES = 2**20  # a longer log of earlier runs is begun anew


class Daemon:
    """``edged`` as a process of ours; its log goes to ``run/edged.log``."""

    def __init__(self, paths: Paths, options: list[str]) -> None:
        self.log = paths.run / "edged.log"
        try:
            paths.run.mkdir(parents=True, exist_ok=True)
            long = self.log.exists() and self.log.stat().st_size > _LOG_BYTES
            with self.log.open("wb" if long else "ab") as log:
                self._from = log.tell()
                # In a session of its own, ctrl-c at the terminal reaches the chat alone.
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "edge_runtime.daemon", *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise EdgeError(f"edged cannot be started: {error}; is {paths.home} yours to write to?") from error

    def last_words(self) -> str:
        """The end of this run's log, without the lines that only say that a request was served."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            lines = clean(log.read().decode("utf-8", "replace")).strip().splitlines()
        return "\n".join([line for line in lines if _SERVED not in line][-_LOG_LINES:])

    def wait_ready(self, box: SyncClient) -> None:
        """Raises EngineError where it ends, or a part of it keeps failing, or it is not ready in time."""
        began = well = time.monotonic()
        shown = ""
        while (elapsed := time.monotonic() - began) < _READY_SECONDS:
            if self.process.poll() is not None:
                raise EngineError(f"edged ended with code {self.process.returncode}")
            try:
                status = box.status()
            except UnreachableError:
                pass
            else:
                if status.ready:
                    return
                failed = [child.detail for child in status.children if child.state == "failed"]
                if any(child.state == "starting" for child in status.children) and not failed:
                    well = time.monotonic()
                if time.monotonic() - well > (_FAILED_SECONDS if failed else _OPENING_SECONDS):
                    raise EngineError("\n".join(["edged does not get ready", *(failed or [status.detail])]))
                if status.detail != shown:
                    shown = status.detail
                    say(paint(f"  {'; '.join(clean(shown).splitlines())}", sys.stderr, dim=True))
            time.sleep(min(0.05 + elapsed / 10, 0.5))
        raise EngineError(f"edged was not ready after {_READY_SECONDS:.0f} s: {shown}")


@contextmanager
def running(paths: Paths, box: SyncClient, writer: str | None) -> Iterator[None]:
    """A ready daemon on this home for as long as the context lasts."""
    try:
        status = box.status()
    except UnreachableError:
        pass
    else:
        say(f"edged already runs on {clean_line(str(paths.home))}; it is used, and left running")
        if writer is not None and status.writer != writer:
            say(f"its writer is {clean_line(status.writer or 'none')}, not {writer}: stop it first to change that")
        if not status.ready:
            raise EngineError(f"it is not ready: {status.detail}; see: edge doctor")
        yield
        return
    say(f"starting edged on {clean_line(str(paths.home))}")
    began = time.monotonic()
    daemon = Daemon(paths, _options(paths, writer))
    try:
        daemon.wait_ready(box)
        say(f"ready after {time.monotonic() - began:.1f} s, log in {clean_line(str(daemon.log))}")
        yield
    except EngineError as error:
        raise EngineError(f"{error.message}\n{daemon.last_words()}") from error
    finally:
        say("stopping edged")
        tools.stop(daemon.process)


def _options(paths: Paths, writer: str | None) -> list[str]:
    """Options of edged for another writer than the settings name: a file with the settings and that writer."""
    settings = config.load(paths.config)
    if writer is None or writer == settings.models.writer:
        return []
    settings = dataclasses.replace(settings, models=dataclasses.replace(settings.models, writer=writer))
    lines: list[str] = []
    for name, part in dataclasses.asdict(settings).items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in part.items()), ""]
    file = paths.run / "demo.toml"
    paths.run.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines), "utf-8")
    return ["--config", str(file)]


def _toml(value: object) -> str:
    """A setting as TOML, which differs from JSON in its tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)


def samples() -> Path:
    """The folder of the sample documents and ``questions.toml``."""
    return Path(edge_runtime.__path__[0]) / "samples"


def questions() -> list[str]:
    """The demo's three questions: a fact, a procedure, one that the documents cannot answer."""
    known = tomllib.loads((samples() / "questions.toml").read_text("utf-8"))
    return [str(entry["question"]) for entry in known["demo"]]


def _add_samples(box: SyncClient) -> None:
    files = [
        FoundFile(path, path.name, path.stat().st_size)
        for path in sorted((samples() / "documents").iterdir())
        if path.is_file()
    ]
    tally = Tally()
    total = Total(files=len(files), size=sum(file.size for file in files), known=True)
    add_files(box, files, tally, Terms(), total=total)
    say(str(tally))
    if tally.failures:
        raise EdgeError("not every sample document could be added; see: edge doctor")


class Stopwatch:
    """Passes events on, and notes when the first sentence came."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.first: float | None = None  # seconds

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def watch(self, events: Iterator[AskEvent]) -> Iterator[AskEvent]:
        for event in events:
            if isinstance(event, Sentence) and self.first is None:
                self.first = self.elapsed
            yield event


def _answer(box: SyncClient, question: str) -> None:
    put()
    put(paint(f"> {question}", sys.stdout, bold=True))
    watch = Stopwatch()
    answer = AnswerView().show(watch.watch(box.ask_stream(question)))
    first = f"first sentence after {watch.first:.2f} s, " if watch.first is not None else ""
    put(paint(f"({note(answer)}; {first}all after {watch.elapsed:.2f} s)", sys.stdout, dim=True))


def _prove_seal(box: SyncClient) -> None:
    """Raises SealError where a sealed process found a way out."""
    proof = box.probe()
    verdict = checks.check_seal(box.status().seal, proof)
    put()
    put(paint("The ways out of the box, as its own processes tried them just now:", sys.stdout, bold=True))
    processes = list(dict.fromkeys(one.process for one in proof.attempts))
    routes = list(dict.fromkeys(one.route for one in proof.attempts))
    tried = {(one.route, one.process): "refused" if one.refused else "OPEN" for one in proof.attempts}
    rows = [(route, *(tried.get((route, process), "-") for process in processes)) for route in routes]
    for line in table(("way out", *processes), rows):
        put(line)
    put(clean_line(verdict.detail))
    if verdict.state == "fail":
        raise SealError(f"the box is not sealed: {verdict.detail}; {verdict.fix}")


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@click.command(short_help="Start, add the sample documents and ask three questions.")
@click.option("--writer", metavar="NAME", help="Another writer than the settings name, for this run.")
@click.option("--no-chat", is_flag=True, help="Leave at the end, at a terminal too.")
@click.pass_context
def demo(ctx: click.Context, *, writer: str | None, no_chat: bool) -> None:
    """See it work: start the daemon, add the sample documents, ask three questions, prove the seal.

    At a terminal it then stays for your own questions. The daemon that it started is stopped on leaving.

    \b
    Example:
      edge demo
      edge demo --writer smollm2-135m-instruct
    """
    paths = Paths.from_environment()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)  # so that the daemon is stopped then too
    with connect_sync(paths.socket) as box, running(paths, box, writer):
        _add_samples(box)
        for question in questions():
            _answer(box, question)
        _prove_seal(box)
        put()
        put(f"Everything this box owns is in {clean_line(str(paths.home))}")
        put(f"Its socket is {clean_line(str(paths.socket))}")
        put("Your own documents: edge add PATH...   your own questions: edge ask, edge chat   faults: edge doctor")
        if sys.stdin.isatty() and sys.stdout.isatty() and not no_chat and os.environ.get("TERM"):
            ctx.exit(converse(box, paths))
    ctx.exit(ExitCode.OK)

"""``edge ask``, and how an answer looks on the terminal (``chat`` and ``demo`` use that too)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

import click

from edge_runtime.cli.output import Wrapped, clean_line, paint, place, put, put_citation, put_json, say, width
from edge_runtime.client import AskEvent, SyncClient, connect_sync
from edge_runtime.errors import EngineError, NotFoundError
from edge_runtime.knowledge_protocol import Answer, AskMode, Assembly, Citation, Filter, Sentence, Sources
from edge_runtime.paths import Paths
from edge_runtime.protocol import DEFAULT_COLLECTION, Priority, Urgency

# A numbered step, a list's item or a log's entry begins a line of its own, and so does what has no full stop: a row.
_ITEM = re.compile(r"\s*(?:\d{1,3}[.)]|[-*•]|\d{4}-\d\d-\d\d)\s")
_WHOLE = re.compile(r"[.!?…:;][\"'”’)\]]*\s*$")


NEAR = 0.05  # confidence below which a declined question has nothing near it in the documents


class AnswerView:
    """Writes an answer as it comes: sentences with their marks, then the quotes that the marks stand for."""

    def __init__(self) -> None:
        self._text = Wrapped(width())
        self._wait = Wait()
        self._sources: list[Citation] = []
        self._cited: list[int] = []
        self._sentences: set[str] = set()
        self._was_row = False
        self.shown: list[Citation] = []  # what was printed below the answer, in order

    def show(self, events: Iterable[AskEvent]) -> Answer:
        """Write every event; returns the answer. Raises EngineError where the stream holds none."""
        try:
            self._wait.show("looking in the documents")
            for event in events:
                self._wait.clear()
                match event:
                    case Sources():
                        self._sources = event.citations
                        self._wait.show("reading what was found")
                    case Sentence():
                        self._sentence(event)
                    case Answer():
                        self._finish(event)
                        return event
        finally:
            self._wait.clear()
            self._text.end()
        raise EngineError("the daemon ended without an answer; its log says why")

    def _sentence(self, sentence: Sentence) -> None:
        known = [index for index in sentence.citations if 0 <= index < len(self._sources)]
        self._cited += [index for index in known if index not in self._cited]
        marks = "".join(f" [{self._cited.index(index) + 1}]" for index in known)
        is_row = not _WHOLE.search(sentence.text)
        if is_row or self._was_row or _ITEM.match(sentence.text):
            self._text.end()
        self._was_row = is_row
        self._sentences.add(_plain(sentence.text))
        self._text.write(sentence.text + marks)

    def _finish(self, answer: Answer) -> None:
        if not self._sentences:
            self._text.write(answer.answer)
            self._sentences.add(_plain(answer.answer))
        self._text.end()
        self.shown = [self._sources[index] for index in self._cited] if self._cited else answer.citations
        if not answer.grounded and answer.confidence < NEAR:
            self.shown = []
        if self.shown:
            put()
            if not answer.grounded:
                put("The nearest that they say:")
        numbered = list(enumerate(self.shown, 1))
        for where, group in groupby(numbered, key=lambda pair: (pair[1].document, place(pair[1].locator))):
            run = list(group)
            # The steps of a procedure are on the screen already, word for word.
            if len(run) > 1 and all(_plain(citation.quote) in self._sentences for _, citation in run):
                marks = paint(f"[{run[0][0]}] to [{run[-1][0]}]", sys.stdout, fg="cyan")
                put(f"{marks} {paint(clean_line(where[0]), sys.stdout, bold=True)}, {where[1]}, word for word")
                continue
            for number, citation in run:
                put_citation(number, citation)


def _plain(text: str) -> str:
    return " ".join(text.split())


class Wait:
    """A word on a line of the terminal while nothing else can be shown; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._able = sys.stderr.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in {None, "dumb"}
        self._shown = False

    def show(self, text: str) -> None:
        if self._able:
            say(paint(f"{text} ...", sys.stderr, dim=True), end="")
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            say("\r\x1b[K", end="")
            self._shown = False


def note(answer: Answer) -> str:
    """One line on how an answer came about: ``from the documents, phrased by smollm2, 84 ms``."""
    if not answer.grounded:
        source = "the documents do not say"
    elif answer.model is None:
        source = "quoted from the documents"
    else:
        source = f"from the documents, phrased by {clean_line(answer.model)}"
    if answer.assembly is not None:
        source += f", {answer.assembly} in {answer.calls} calls"
    age = f", cached {answer.cached_age_s:.0f} s ago" if answer.cached_age_s is not None else ""
    total = answer.timings_ms.get("total")
    return source + age + ("" if total is None else f", {total:.0f} ms")


@contextmanager
def asking(collection: str) -> Iterator[SyncClient]:
    """A client; where the daemon knows no such collection, the error names those that hold documents."""
    with connect_sync(Paths.from_environment().socket) as box:
        try:
            yield box
        except NotFoundError as error:
            if collection == DEFAULT_COLLECTION:
                raise
            there = ", ".join(sorted({document.collection for document in box.documents().documents}))
            fix = (
                f"collections that hold documents: {there}" if there else "no documents yet; add some: edge add PATH..."
            )
            what = error.message.partition("\n")[0].partition(";")[0]
            raise NotFoundError(f"{what}\n{fix}", param=error.param) from error


@click.command(short_help="Ask one question; the answer cites the documents.")
@click.argument("question")
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The collection to ask.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "extract"]),
    default="auto",
    show_default=True,
    help="extract: quote the documents, and let no model phrase the answer.",
)
@click.option(
    "--assembly",
    type=click.Choice(["auto", "stuff", "map-reduce", "refine"]),
    default="auto",
    show_default=True,
    help="How passages are put before the model, where several must be read.",
)
@click.option(
    "--document",
    "--filter-document",
    "documents",
    multiple=True,
    help="Only from this document (name or id); any of several.",
)
@click.option("--tag", "tags", multiple=True, help="Only from documents with this tag; all of several.")
@click.option("--since", help="Only from documents of this day or later (YYYY-MM-DD).")
@click.option("--until", help="Only from documents of this day or earlier.")
@click.option(
    "--priority",
    type=click.Choice(["realtime", "interactive", "batch"]),
    default="interactive",
    show_default=True,
    help="Who goes first.",
)
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Seconds; fail rather than take longer.")
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
def ask(
    *,
    question: str,
    collection: str,
    mode: AskMode,
    assembly: Assembly,
    documents: tuple[str, ...],
    tags: tuple[str, ...],
    since: str | None,
    until: str | None,
    priority: Priority,
    deadline: float | None,
    as_json: bool,
    no_stream: bool,
) -> None:
    """Ask one question of the documents.

    Each sentence of the answer bears the marks of the quotes it rests on; the quotes follow it. Where the documents do
    not say, the answer says so.

    \b
    Example:
      edge ask "What does alarm E17 mean?"
      edge ask "Which alarms stop pump P12?" --tag pumps --since 2026-01-01
      edge ask "Which torque?" --json | jq -r .answer
    """
    edge = Urgency(priority=priority, deadline_ms=None if deadline is None else max(round(1000 * deadline), 1))
    narrowed = bool(documents or tags or since or until)
    wanted = Filter(documents=list(documents), tags=list(tags), since=since, until=until) if narrowed else None
    with asking(collection) as box:
        if as_json or no_stream:
            answer = box.ask(question, collection=collection, mode=mode, assembly=assembly, filter=wanted, edge=edge)
            if as_json:
                put_json(answer)
                return
            AnswerView().show([answer])
        else:
            answer = AnswerView().show(
                box.ask_stream(question, collection=collection, mode=mode, assembly=assembly, filter=wanted, edge=edge)
            )
    if sys.stderr.isatty():
        say(paint(note(answer), sys.stderr, dim=True))

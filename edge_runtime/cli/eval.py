"""``edge eval``: how well the box finds and answers what a file of questions asks, and how fast.

The measures are :mod:`edge_runtime.evaluation`'s; this asks the daemon, one question after the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from edge_runtime.cli.ask import asking
from edge_runtime.cli.output import clean_line, put, put_json, say, table
from edge_runtime.cli.progress import Bars, bars
from edge_runtime.client import SyncClient
from edge_runtime.errors import NotFoundError
from edge_runtime.evaluation import (
    CUT,
    AnswerScores,
    Judged,
    Labelled,
    SearchScores,
    Share,
    gains,
    judge,
    read_questions,
    score_answers,
    score_search,
)
from edge_runtime.knowledge_protocol import Answer, AskMode, SearchMode
from edge_runtime.protocol import DEFAULT_COLLECTION

_MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")
_PASSAGES = 5  # fetched for each place of a ranking of documents: several may be of one
_MOST = 100  # passages that the daemon gives at once
_NAMED = 5  # documents that are not there, in the warning


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What ``--json`` writes."""

    file: str
    collection: str
    k: int
    questions: int
    judged: int  # those of which the file says what search should find
    missing: list[str]  # documents that the file names and the collection has not
    search: dict[SearchMode, SearchScores]
    answers: AnswerScores | None


@click.command("eval", short_help="Measure search and answers on questions with known answers.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The collection to ask.")
@click.option(
    "--mode",
    type=click.Choice([*_MODES, "all"]),
    default="hybrid",
    show_default=True,
    help="By words, by meaning, both, or each of the three.",
)
@click.option("-k", "count", type=click.IntRange(1, _MOST), default=CUT, show_default=True, help="Places for recall.")
@click.option("--ask", "asked", is_flag=True, help="Ask each question too, and judge the answers.")
@click.option("--extract", is_flag=True, help="As --ask, with answers from quotes alone.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def eval(  # noqa: A001 (the command's name)
    *,
    file: Path,
    collection: str,
    mode: Literal["hybrid", "dense", "lexical", "all"],
    count: int,
    asked: bool,
    extract: bool,
    as_json: bool,
) -> None:
    """Measure search and answers on a file of questions.

    FILE has one JSON object a line, or is a SQuAD 2.0 file. A line names what is right: "documents" that should be
    found (names or ids), or "texts", one of which a passage should hold; "answers", one of which a quote should hold;
    "answerable": false where the documents do not say.

    \b
    Example:
      echo '{"question": "What does E17 mean?", "documents": ["pump.md"]}' > questions.jsonl
      edge eval questions.jsonl --mode all
      edge eval questions.jsonl --extract --json
    """
    questions = read_questions(file)
    modes = _MODES if mode == "all" else (mode,)
    with asking(collection) as box:
        missing = _missing(box, collection, questions)
        if missing:
            more = ", ..." if len(missing) > _NAMED else ""
            names = ", ".join(map(clean_line, missing[:_NAMED]))
            say(f"{len(missing)} documents that {clean_line(file.name)} names are not there: {names}{more}")
        with bars("questions") as shown:
            asking_all = Round(box, collection, count, shown)
            found = {one: asking_all.search(questions, one) for one in modes}
            answers = asking_all.ask(questions, "extract" if extract else "auto") if asked or extract else None
    judged = sum(one.is_ranked for one in questions)
    search = {one: score_search(told.rankings, told.seconds, count) for one, told in found.items()}
    judged_answers = None if answers is None else score_answers(answers)
    result = _Evaluated(str(file), collection, count, len(questions), judged, missing, search, judged_answers)
    if as_json:
        put_json(result)
        return
    _show(result)


def _missing(box: SyncClient, collection: str, questions: list[Labelled]) -> list[str]:
    wanted = {name: None for one in questions for name in one.documents}
    if not wanted:
        return []
    there = [one for one in box.documents().documents if one.collection == collection]
    return [name for name in wanted if name not in {known for one in there for known in (one.id, one.name)}]


@dataclass(frozen=True, slots=True)
class Searched:
    """What one mode found: a ranking (:func:`gains`) of each question that can be judged, and the seconds of all."""

    rankings: list[tuple[list[int], int]]
    seconds: list[float]


@dataclass(frozen=True, slots=True)
class Round:
    """Puts questions to the box, one after the other; ``count`` places of a ranking are looked at."""

    box: SyncClient
    collection: str
    count: int
    shown: Bars

    def search(self, questions: list[Labelled], mode: SearchMode) -> Searched:
        """Search for all of them; more passages than places are fetched, since several may be of one document."""
        depth = min(_PASSAGES * max(self.count, CUT), _MOST)
        found = Searched([], [])
        self.box.search(questions[0].question, collection=self.collection, mode=mode, k=depth)  # the first is slower
        for done, one in enumerate(questions, 1):
            began = time.perf_counter()
            hits = self.box.search(one.question, collection=self.collection, mode=mode, k=depth).hits
            found.seconds.append(time.perf_counter() - began)
            if one.is_ranked:
                found.rankings.append(gains(one, hits))
            self.shown.update(f"search, {mode}", done, len(questions))
        return found

    def ask(self, questions: list[Labelled], mode: AskMode) -> list[Judged]:
        """Ask all of them, and look up every quote."""
        judged = list[Judged]()
        for done, one in enumerate(questions, 1):
            began = time.perf_counter()
            answer = self.box.ask(one.question, collection=self.collection, mode=mode)
            seconds = time.perf_counter() - began
            judged.append(judge(one, answer, verbatim=self._verbatim(answer), seconds=seconds))
            self.shown.update("answers", done, len(questions))
        return judged

    def _verbatim(self, answer: Answer) -> int:
        """How many of an answer's quotes stand in their documents, word for word, where they say."""
        found = 0
        for one in answer.citations:
            try:
                passage = self.box.document_text(one.document_id, one.locator.start, one.locator.end)
            except NotFoundError:
                continue
            found += passage.text == one.quote
        return found


def _show(found: _Evaluated) -> None:
    put(f"{found.questions} questions, {found.judged} of them with what search should find")
    put()
    head = ("search", f"recall@{found.k}", f"nDCG@{CUT}", "95 %", f"MRR@{CUT}", "p50 ms", "p95 ms")
    rows = [
        (
            mode,
            _number(scores.recall),
            _number(scores.ndcg),
            _interval(scores.ndcg),
            _number(scores.mrr),
            f"{scores.p50_ms:.1f}",
            f"{scores.p95_ms:.1f}",
        )
        for mode, scores in found.search.items()
    ]
    for line in table(head, rows):
        put(line)
    if found.answers is not None:
        put()
        _show_answers(found.answers)


def _show_answers(scores: AnswerScores) -> None:
    told = (
        ("grounded in the documents", scores.grounded, "questions"),
        ("right", scores.right, "with a known answer"),
        ("declined", scores.declined, "questions"),
        ("declined, and rightly so", scores.declined_rightly, "not answerable"),
        ("declined, though answerable", scores.declined_wrongly, "answerable"),
        ("quotes that are verbatim", scores.verbatim, "quotes"),
    )
    rows = [(what, _number(one), _interval(one), f"{one.of} {kind}") for what, one, kind in told]
    for line in table(("answers", "share", "95 %", "of"), rows):
        put(line)
    put(f"an answer took {scores.p50_ms:.1f} ms (p50), {scores.p95_ms:.1f} ms (p95)")


def _number(one: Share) -> str:
    return "-" if one.value is None else f"{one.value:.3f}"


def _interval(one: Share) -> str:
    return "-" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"

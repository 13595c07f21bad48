"""How well search and answers do on questions whose right answers are known: reading them, and the measures. Pure.

Imports nothing heavy: ``edge eval`` and the benchmarks stand on it. It asks nobody anything.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.errors import RequestError
from edge_runtime.knowledge_protocol import Answer, Hit

CUT = 10  # places of a ranking that nDCG and MRR look at
LONGEST = 8000  # characters of a question, as the daemon takes them
_DRAWS = 1000
_PART_CHARS = 40  # a passage as short as this may lie in a text by chance


class Labelled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question and what is right: ``documents`` (names or ids) that search should find, all of them; or ``texts``,
    one of which a found passage should hold (or lie in); ``answers``, one of which a quote should hold."""

    question: str
    documents: list[str] = []
    texts: list[str] = []
    answers: list[str] = []
    answerable: bool | None = None  # None: it is where anything right is named

    @property
    def is_answerable(self) -> bool | None:
        """None: nobody said."""
        named = bool(self.documents or self.texts or self.answers)
        return self.answerable if self.answerable is not None else (named or None)

    @property
    def is_ranked(self) -> bool:
        """Whether search can be judged by it."""
        return self.is_answerable is True and bool(self.documents or self.texts or self.answers)


def read_questions(path: Path) -> list[Labelled]:
    """The questions of a file of JSON lines, or of SQuAD 2.0 (Rajpurkar et al. 2018), whose paragraphs are ``texts``.

    Raises:
        RequestError: the file cannot be read, holds no question, or a line is not one; the message names the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}\ngive a file of JSON lines in UTF-8") from error
    whole = _whole(text)
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        found = _squad(path, whole["data"])
    else:
        found = [_line(path, at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise RequestError(f'{path} holds no question; a line is {{"question": "...", "documents": ["..."]}}')
    return found


def _whole(text: str) -> Any:
    """The file as one JSON value, where it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _line(path: Path, number: int, line: str) -> Labelled:
    try:
        found = msgspec.json.decode(line, type=Labelled)
    except msgspec.MsgspecError as error:
        raise RequestError(
            f'{path}, line {number}: {error}\na line is {{"question": "...", "documents": ["..."]}}, with "texts", '
            '"answers" and "answerable" where they are known'
        ) from error
    if not found.question.strip() or len(found.question) > LONGEST:
        raise RequestError(f"{path}, line {number}: a question has 1 to {LONGEST} characters; leave the line out")
    if found.answerable is False and (found.texts or found.answers):
        raise RequestError(f"{path}, line {number}: it has a right answer and is not answerable; one of them is wrong")
    return found


def _squad(path: Path, articles: list[Any]) -> list[Labelled]:
    try:
        return [
            Labelled(
                question=item["question"],
                texts=[] if item.get("is_impossible") else [paragraph["context"]],
                answers=[] if item.get("is_impossible") else sorted({one["text"] for one in item["answers"]}),
                answerable=not item.get("is_impossible"),
            )
            for article in articles
            for paragraph in article["paragraphs"]
            for item in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{path} looks like SQuAD and is not: {error!r}\ngive the file as it was published"
        ) from error


# ---- one ranking ---------------------------------------------------------------------------------------------------


def gains(labelled: Labelled, hits: Sequence[Hit]) -> tuple[list[int], int]:
    """1 where what is in that place of the ranking is right, else 0; and how many right ones there are.

    Where documents are named the places are documents, in the order of their best passages; else they are passages, of
    which the first that holds one of the texts (or answers) is the right one.
    """
    if labelled.documents:
        wanted = set(labelled.documents)
        ranked = {hit.document_id: hit.document for hit in hits}
        return [int(not wanted.isdisjoint(pair)) for pair in ranked.items()], len(wanted)
    texts = [_flat(text) for text in labelled.texts] or [_flat(text) for text in labelled.answers]
    found = [any(_is_in(text, _flat(hit.text)) for text in texts) for hit in hits]
    first = found.index(True) if True in found else len(found)
    return [int(place == first) for place in range(len(found))], 1


def recall_at(ranking: Sequence[int], right: int, count: int) -> float:
    """Share of the right ones among the first ``count`` places (Manning, Raghavan, Schuetze 2008, section 8.4)."""
    return min(sum(ranking[:count]) / right, 1.0) if right else 0.0


def ndcg_at(ranking: Sequence[float], right: int, count: int = CUT) -> float:
    """Normalised discounted cumulative gain of the first ``count`` places (Jarvelin, Kekalainen 2002) with the discount
    log2(place + 1); the ideal ranking has the ``right`` ones, each of gain 1, first."""
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(right, count) + 1))
    found = sum(gain / math.log2(place + 1) for place, gain in enumerate(ranking[:count], 1))
    return min(found / ideal, 1.0) if ideal else 0.0


def reciprocal_rank(ranking: Sequence[int], count: int = CUT) -> float:
    """One over the place of the first right one (Voorhees 1999); 0 where none of the first ``count`` is."""
    return next((1 / place for place, gain in enumerate(ranking[:count], 1) if gain), 0.0)


def _flat(text: str) -> str:
    return " ".join(text.split()).casefold()


def _is_in(text: str, passage: str) -> bool:
    """Whether the passage holds the text, or is a part of it."""
    return bool(text) and (text in passage or (len(passage) >= _PART_CHARS and passage in text))


# ---- many of them --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """A mean over ``of`` cases with its 95 % interval; all None where there is no case."""

    value: float | None
    low: float | None
    high: float | None
    of: int


@dataclass(frozen=True, slots=True)
class SearchScores:
    """Over the questions that search can be judged by; times in milliseconds, as the client sees them, of all."""

    recall: Share
    ndcg: Share
    mrr: Share
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer; None where it cannot be said."""

    answerable: bool | None
    grounded: bool
    right: bool | None  # a quote, or the answer, holds a right answer; or comes from a right document
    quotes: int
    verbatim: int  # of those: word for word in the document, where they say
    seconds: float


@dataclass(frozen=True, slots=True)
class AnswerScores:
    grounded: Share  # of all questions
    right: Share  # of the answerable ones
    declined: Share  # of all
    declined_rightly: Share  # of those that the documents do not answer
    declined_wrongly: Share  # of the answerable ones
    verbatim: Share  # of all quotes
    p50_ms: float
    p95_ms: float


def score_search(rankings: Iterable[tuple[Sequence[int], int]], seconds: Sequence[float], count: int) -> SearchScores:
    """``rankings`` are :func:`gains` of the questions that can be judged; recall is that of the first ``count``."""
    ranked = list(rankings)
    return SearchScores(
        recall=share([recall_at(ranking, right, count) for ranking, right in ranked]),
        ndcg=share([ndcg_at(ranking, right) for ranking, right in ranked]),
        mrr=share([reciprocal_rank(ranking) for ranking, _ in ranked]),
        p50_ms=round(1000 * quantile(seconds, 0.5), 2),
        p95_ms=round(1000 * quantile(seconds, 0.95), 2),
    )


def judge(labelled: Labelled, answer: Answer, *, verbatim: int, seconds: float) -> Judged:
    """``verbatim`` of the answer's quotes stand in their documents where they say."""
    right: bool | None = None
    if labelled.is_ranked:
        golds = [_flat(text) for text in labelled.answers or labelled.texts]
        said = [_flat(text) for text in (answer.answer, *(one.quote for one in answer.citations))]
        if golds:
            right = any(gold in text for gold in golds for text in said)
        else:
            right = any({one.document, one.document_id} & set(labelled.documents) for one in answer.citations)
        right = right and answer.grounded
    return Judged(labelled.is_answerable, answer.grounded, right, len(answer.citations), verbatim, seconds)


def score_answers(judged: Sequence[Judged]) -> AnswerScores:
    answerable = [one for one in judged if one.answerable is True]
    unanswerable = [one for one in judged if one.answerable is False]
    seconds = [one.seconds for one in judged]
    quotes = [float(at < one.verbatim) for one in judged for at in range(one.quotes)]
    return AnswerScores(
        grounded=share([float(one.grounded) for one in judged]),
        right=share([float(one.right) for one in answerable if one.right is not None]),
        declined=share([float(not one.grounded) for one in judged]),
        declined_rightly=share([float(not one.grounded) for one in unanswerable]),
        declined_wrongly=share([float(not one.grounded) for one in answerable]),
        verbatim=share(quotes),
        p50_ms=round(1000 * quantile(seconds, 0.5), 2),
        p95_ms=round(1000 * quantile(seconds, 0.95), 2),
    )


def share(values: Sequence[float]) -> Share:
    """The mean of ``values`` and its interval."""
    if not values:
        return Share(None, None, None, 0)
    low, high = interval(values)
    return Share(round(sum(values) / len(values), 4), round(low, 4), round(high, 4), len(values))


def interval(values: Sequence[float], *, draws: int = _DRAWS, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean (Efron, Tibshirani 1993); of a mean difference, given differences.

    The same values in the same order give the same interval.
    """
    if not values:
        raise ValueError("there is no interval of no values")
    chance, size = random.Random(seed), len(values)  # noqa: S311 (it draws samples, no secrets)
    means = sorted(sum(chance.choices(values, k=size)) / size for _ in range(draws))
    return quantile(means, 0.025), quantile(means, 0.975)


def quantile(values: Sequence[float], share_below: float) -> float:
    """Linear between the two nearest values (Hyndman, Fan 1996, type 7); 0 without any."""
    if not values:
        return 0.0
    ordered = sorted(values)
    at = share_below * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)

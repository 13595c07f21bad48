"""Which sentences answer a question, and how sure that is. Pure: passages in, quotes and a probability out.

Sentences are scored by their own cosine, the share of the question's words they hold, and their passage's scores. The
confidence joins two questions: is the subject here at all (cosine), and does the passage say *this* (a name, a code, a
number or a word of the question that was not found speaks against it, a clear lead over the next best speaks for it).
The weights are equal per standard deviation of each signal, not fitted; ``benchmarks/squad.py`` measures the outcome.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.words import Asked, codes, numbers, stems, words

QUOTE_CHARS = 300
_GAP = 4  # characters of white space between two passages that follow each other
RUNNERS_UP = 4  # the lead is measured over the fifth best sentence: one neighbour saying the same is no doubt
WHOLE_BONUS = 0.1  # for a sentence that holds every content word of the question
TITLE_COST = 0.3  # for a line that says nothing beyond the question and its document's name
TITLE_CHARS = 60
NUMBER_BONUS = 0.15  # for a unit that holds every number of the question
OTHER_COST = 0.3  # for a unit about P13 where P12 was asked for
SUBJECT_COSINE = 0.36  # below this the subject is more likely absent than present
SUBJECT_WIDTH = 0.035


@dataclass(frozen=True, slots=True)
class Unit:
    """One sentence, list item, table row or log line of a passage: characters of the document."""

    start: int
    end: int
    text: str
    item: bool  # stands alone (list item, row, log line): it is not joined with its neighbours
    under: str = ""  # of a row its table's head, of a list item the sentence that announces the list
    cut: frozenset[str] | None = None  # its words' stems, where they were taken already

    @property
    def terms(self) -> frozenset[str]:
        """Stems of its content words."""
        return frozenset(stems(self.text)) if self.cut is None else self.cut


@dataclass(frozen=True, slots=True)
class Passage:
    """One chunk that the search found: ``text`` begins at character ``start`` of its document.

    ``vectors`` holds a unit row of float32 for each of ``units``.
    """

    document_id: str
    document: str
    heading: str | None
    page: int | None
    start: int
    text: str
    units: tuple[Unit, ...]
    vectors: NDArray[np.float32]
    dense: float  # cosine of question and passage
    lexical: float  # 0 to 1: share of the best possible BM25
    titles: str = ""  # all headings that it stands under

    def is_followed_by(self, other: Passage) -> bool:
        """Whether ``other`` is the next stretch of the same section."""
        return (self.document_id, self.heading, self.titles) == (
            other.document_id,
            other.heading,
            other.titles,
        ) and self.start < other.start <= self.start + len(self.text) + _GAP


@dataclass(frozen=True, slots=True)
class Quote:
    """A verbatim stretch of one passage: ``units[first:last + 1]``; ``QUOTE_CHARS`` at most, or one longer unit."""

    passage: Passage
    core: int  # the unit that scored
    first: int
    last: int
    score: float
    cosine: float

    @property
    def start(self) -> int:
        return self.passage.units[self.first].start

    @property
    def end(self) -> int:
        return self.passage.units[self.last].end

    @property
    def text(self) -> str:
        return self.passage.text[self.start - self.passage.start : self.end - self.passage.start]


@dataclass(frozen=True, slots=True)
class Evidence:
    quotes: tuple[Quote, ...]  # best first
    confidence: float  # probability that the first quote answers the question
    signals: dict[str, float]  # what the confidence was made of
    passages: tuple[Passage, ...] = ()  # what was weighed


@dataclass(frozen=True, slots=True)
class _Scored:
    score: float
    cosine: float
    passage: int
    unit: int


def weigh(asked: Asked, vector: NDArray[np.float32], passages: Sequence[Passage], *, most: int = 3) -> Evidence:
    """Rank quotes for a question whose unit vector is ``vector`` (float32, same width as the passages' vectors)."""
    if not any(passage.units for passage in passages):
        return Evidence(quotes=(), confidence=0.0, signals={})
    scored = _score(asked, vector, passages)
    ranked = sorted(scored, key=lambda one: -one.score)
    quotes: list[Quote] = []
    for one in ranked:
        if any(quote.passage is passages[one.passage] and quote.first <= one.unit <= quote.last for quote in quotes):
            continue
        quotes.append(_quote(passages[one.passage], one, [other for other in scored if other.passage == one.passage]))
        if len(quotes) == most:
            break
    signals = _signals(asked, passages, ranked, quotes[0])
    return Evidence(quotes=tuple(quotes), confidence=_confidence(signals), signals=signals, passages=tuple(passages))


def _score(asked: Asked, vector: NDArray[np.float32], passages: Sequence[Passage]) -> list[_Scored]:
    terms = [[unit.terms for unit in passage.units] for passage in passages]
    rarity = _rarity(asked, [frozenset[str]().union(*units) for units in terms])
    total = sum(rarity.values()) or 1.0
    heads = {unit.under for passage in passages for unit in passage.units if unit.under.startswith("|")}
    scored = []
    for at, passage in enumerate(passages):
        known = asked.terms | set(stems(passage.document))
        cosines = passage.vectors @ vector if len(passage.units) else ()
        for unit, cosine in enumerate(cosines):
            covered = sum(rarity[term] for term in asked.terms if term in terms[at][unit]) / total
            whole = WHOLE_BONUS if len(asked.terms) > 1 and asked.terms <= terms[at][unit] else 0.0
            named = is_title(passage.units[unit]) or passage.units[unit].text in heads
            title = TITLE_COST if named or terms[at][unit] <= known else 0.0
            passed = 0.3 * passage.dense + 0.3 * passage.lexical
            score = float(cosine) + 0.6 * covered + whole - title + _subject(asked, passage.units[unit]) + passed
            scored.append(_Scored(score, float(cosine), at, unit))
    return scored


def _subject(asked: Asked, unit: Unit) -> float:
    """What a unit earns by the question's own numbers, and pays for naming another thing than the one asked for."""
    earned = NUMBER_BONUS if asked.numbers and asked.numbers <= set(numbers(unit.text)) else 0.0
    return earned - (OTHER_COST if _other(asked, unit.text) else 0.0)


def _other(asked: Asked, text: str) -> bool:
    """Whether ``text`` names things by code, and none of them is asked for."""
    named = set(codes(text))
    return bool(asked.codes) and bool(named) and not any(within(code, text) for code in asked.codes)


def within(code: str, text: str) -> bool:
    return set(words(code)) <= set(words(text))


def is_title(unit: Unit) -> bool:
    """A short line without a full stop announces something; it seldom says it."""
    return not unit.item and len(unit.text) < TITLE_CHARS and unit.text.rstrip()[-1:] not in (*".!?:;", "")


def _rarity(asked: Asked, passages: Sequence[frozenset[str]]) -> dict[str, float]:
    """BM25's inverse document frequency over the passages found: what tells them apart counts."""
    count = Counter(term for passage in passages for term in asked.terms & passage)
    size = len(passages)
    return {term: math.log(1 + (size - count[term] + 0.5) / (count[term] + 0.5)) for term in asked.terms}


def _quote(passage: Passage, best: _Scored, siblings: Sequence[_Scored]) -> Quote:
    """Widen the best sentence by its better neighbour, again and again, while it stays short."""
    score = {one.unit: one.score for one in siblings}
    units = passage.units
    first = last = best.unit
    while not units[best.unit].item:
        around = []
        if (
            last + 1 < len(units)
            and units[last + 1].end - units[first].start <= QUOTE_CHARS
            and not units[last + 1].item
        ):
            around.append((score[last + 1], last + 1))
        if first > 0 and units[last].end - units[first - 1].start <= QUOTE_CHARS and not units[first - 1].item:
            around.append((score[first - 1], first - 1))
        if not around:
            break
        chosen = max(around)[1]
        first, last = min(first, chosen), max(last, chosen)
    return Quote(passage=passage, core=best.unit, first=first, last=last, score=best.score, cosine=best.cosine)


def _signals(asked: Asked, passages: Sequence[Passage], ranked: Sequence[_Scored], quote: Quote) -> dict[str, float]:
    passage = quote.passage
    said = " ".join(unit.text for unit in passage.units[quote.first : quote.last + 1])
    core = passage.units[quote.core].text
    titles = f"{passage.heading or ''} {passage.document}"
    # Prose may name its subject a sentence before; a sentence that names another subject is about that one.
    about = core if _other(asked, core) else said
    dense = sorted((other.dense for other in passages), reverse=True)
    # Where so little was found that there is no runner-up, the lead says nothing: take its usual value.
    lead = ranked[0].score - ranked[RUNNERS_UP].score if len(ranked) > RUNNERS_UP else 0.5
    return {
        "subject": max(one.cosine for one in ranked),
        "cosine": quote.cosine,
        "lead": min(lead, 1.0),
        "passage_lead": min(dense[0] - dense[1], 0.3) if len(dense) > 1 else 0.08,
        "names_missing": float(len(asked.names - set(words(f"{said} {titles}")))),
        "codes_missing": float(sum(not within(code, f"{about} {titles}") for code in asked.codes)),
        "numbers_missing": float(len(asked.numbers - set(numbers(f"{said} {titles}")))),
        "words_unheard": float(_unheard(asked, passages)),
        "quantity_missing": float(asked.quantity and not set(numbers(said)) - asked.numbers),
    }


def _unheard(asked: Asked, passages: Sequence[Passage]) -> int:
    """How many content words of the question, names and codes aside, no passage found holds in any form."""
    heard = {word[:5] for passage in passages for word in words(passage.text)}
    return sum(1 for term in asked.terms - asked.names - asked.codes if term[:5] not in heard)


# Mean and standard deviation of each signal over questions whose subject is in the documents, and its direction.
_SCALE = {
    "cosine": (0.58, 0.12, 1.0),
    "lead": (0.50, 0.23, 1.0),
    "passage_lead": (0.084, 0.076, 1.0),
    "names_missing": (0.22, 0.45, -1.0),
    "numbers_missing": (0.12, 0.36, -1.0),
    "codes_missing": (0.0, 0.12, -1.0),
    "words_unheard": (0.77, 0.5, -1.0),
    "quantity_missing": (0.03, 0.3, -1.0),
}


def _confidence(signals: dict[str, float]) -> float:
    subject = _sigmoid((signals["subject"] - SUBJECT_COSINE) / SUBJECT_WIDTH)
    said = sum(sign * (signals[name] - mean) / spread for name, (mean, spread, sign) in _SCALE.items())
    # Most questions put to a box about its own documents have an answer there: the offset says so.
    return subject * _sigmoid(0.45 * said + 1.2)


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, value))))

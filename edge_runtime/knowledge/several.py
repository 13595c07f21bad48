"""The sentences that bear on a question which one sentence does not answer: lists, summaries. Pure.

A sentence counts by its meaning (cosine) and by the share of the question's words that it holds or stands under: a
table's row says what its head and its headings name. How rare a word is, is counted over the sentences found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.knowledge.evidence import Passage, Quote, Unit, is_title, within
from edge_runtime.knowledge.words import Asked, codes, numbers, stems, words

COMMON = 0.5  # what a word counts that every sentence holds; a rare one counts up to ten times that
LENT = 0.8  # what a word counts that a sentence does not hold itself but stands under
SURE = 0.15  # so far below the best a sentence is taken for part of the answer,
OPEN = 0.45  # and so far only if a reader says so
COVERED = 0.75  # of the best sentence's share of words, what one that is taken holds at least
PINNED = 0.3  # of the question's words by weight: codes and numbers by which a table's row is picked out,
ROW = 0.6  # and then it may be so far below the best: rows are terse
LEAST = 0.3  # of the words by weight, what the best sentence of a list holds at least
MOST = 20
MOST_OF_SUMMARY = 6
SAME = 0.8  # of two sentences' words in common: the second adds nothing to a summary
SUMMARY_SLACK = 0.15  # added to both bounds: a summary wants what is around, too


@dataclass(frozen=True, slots=True)
class Bearing:
    """One sentence that bears on the question; ``sure`` ones are part of the answer."""

    quote: Quote
    sure: bool


@dataclass(frozen=True, slots=True)
class _Weighed:
    passage: Passage
    unit: int
    cosine: float
    covered: float  # 0 to 1: share of the question's words, by weight
    pinned: float  # the same of its codes and numbers, in the sentence itself

    @property
    def value(self) -> float:
        return self.cosine + self.covered


def bearings(
    asked: Asked, vector: NDArray[np.float32], passages: Sequence[Passage], *, summary: bool = False
) -> tuple[Bearing, ...]:
    """Sentences of ``passages`` that bear on a question whose unit vector is ``vector``, the best first."""
    weighed = _weigh(asked, vector, passages, lifts=not summary)
    ranked = sorted((one for one in weighed if _concerns(asked, one)), key=lambda one: -one.value)
    if not ranked or (not summary and max(one.covered for one in ranked) < LEAST):
        return ()
    most, slack = (MOST_OF_SUMMARY, SUMMARY_SLACK) if summary else (MOST, 0.0)
    best, widest = ranked[0].value, max(one.covered for one in ranked)
    found: list[Bearing] = []
    told: list[frozenset[str]] = []
    for one in ranked:
        picked = _is_row(one) and one.pinned >= PINNED and one.value >= best - ROW
        if len(found) == MOST:
            break
        if one.value < best - OPEN - slack and not picked:
            continue
        said = frozenset(words(one.passage.units[one.unit].text))
        if any(_alike(said, other, SAME if summary else 1.0) for other in told):
            continue
        told.append(said)
        near = one.value >= best - SURE - slack and one.covered >= COVERED * widest
        found.append(Bearing(_alone(one), (near or picked) and len(found) < most))
    return tuple(found)


def _weigh(asked: Asked, vector: NDArray[np.float32], passages: Sequence[Passage], *, lifts: bool) -> list[_Weighed]:
    heads = {unit.under for passage in passages for unit in passage.units}
    held: list[tuple[Passage, int, frozenset[str], frozenset[str]]] = []
    for passage in passages:
        titles = frozenset(stems(f"{passage.titles} {passage.document}"))
        for at, unit in enumerate(passage.units):
            own = unit.terms
            if not is_title(unit) and unit.text not in heads and not own <= titles:
                held.append((passage, at, own, titles | frozenset(stems(unit.under))))
    rarity = _rarity(asked, [own | lent for _, _, own, lent in held])
    total = sum(rarity.values()) or 1.0
    hard, lifted = asked.codes | asked.numbers, _lifted(passages) if lifts else {}
    cosines = {id(passage): passage.vectors @ vector for passage in passages if len(passage.units)}
    return [
        _Weighed(
            passage,
            at,
            max(float(cosines[id(passage)][at]), lifted.get(_list(passage, passage.units[at]), -1.0)),
            sum(share if term in own else LENT * share if term in lent else 0.0 for term, share in rarity.items())
            / total,
            sum(share for term, share in rarity.items() if term in hard and term in own) / total,
        )
        for passage, at, own, lent in held
    ]


def _is_row(one: _Weighed) -> bool:
    return one.passage.units[one.unit].under.startswith("|")


def _lifted(passages: Sequence[Passage]) -> dict[tuple[str, str], float]:
    """A row or an item alone has little meaning; what it is about, its passage tells, and of one list the best passage.

    The cosine of each list (:func:`_list`).
    """
    best: dict[tuple[str, str], float] = {}
    for passage in passages:
        for unit in passage.units:
            if unit.item:
                key = _list(passage, unit)
                best[key] = max(best.get(key, -1.0), passage.dense)
    return best


def _list(passage: Passage, unit: Unit) -> tuple[str, str]:
    """Which list or table an item is of; one that nothing announces is of its passage's."""
    return passage.document_id, (unit.under or f"{passage.start}") if unit.item else ""


def _rarity(asked: Asked, sentences: Sequence[frozenset[str]]) -> dict[str, float]:
    """Inverse document frequency of the question's words over sentences; one that none holds is the rarest."""
    count = Counter(term for sentence in sentences for term in asked.terms & sentence)
    size = len(sentences)
    return {
        term: COMMON + math.log(1 + (size - number + 0.5) / (number + 0.5))
        for term in asked.terms
        for number in (count[term],)
    }


def _concerns(asked: Asked, one: _Weighed) -> bool:
    """Whether it has every number and code of the question, and names no other thing of the same kind instead."""
    unit = one.passage.units[one.unit]
    whole = f"{unit.text} {unit.under} {one.passage.titles} {one.passage.document}"
    if not asked.numbers <= set(numbers(whole)) or not all(within(code, whole) for code in asked.codes):
        return False
    named = set(codes(unit.text))
    return not any(
        _kind(other) == _kind(code) and other not in asked.codes and not within(code, unit.text)
        for code in asked.codes
        for other in named
    )


def _kind(code: str) -> str:
    """The letters that a code begins with: P12 and P13 are of one kind, E17 is of another."""
    return code[: next((at for at, character in enumerate(code) if character.isdigit()), len(code))]


def _alike(one: frozenset[str], other: frozenset[str], share: float) -> bool:
    return len(one & other) >= share * max(len(one | other), 1)


def _alone(one: _Weighed) -> Quote:
    return Quote(passage=one.passage, core=one.unit, first=one.unit, last=one.unit, score=one.value, cosine=one.cosine)

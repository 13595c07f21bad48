"""From quotes to an answer: which sentences to give, how to ask the writer to phrase them, and whether to believe it.

Pure. An answer is built from verbatim sentences; what the writer says is shown only where one quote supports it. The
check is about words, not meaning: it stops invented facts, swapped numbers and flipped negations, no wrong emphasis.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.knowledge.evidence import Evidence, Quote, Unit
from edge_runtime.knowledge.words import Asked, codes, negations, numbers, stems

DECLINED = "The documents do not say."
MOST_STEPS = 20
# A phrased sentence whose words follow one quote for less than this share is not that quote phrased.
ORDER_SHARE = 0.6
_WRITER_RULES = (
    "You answer from the quotes alone, in one or two short sentences, with the quotes' own words. "
    "Keep numbers, units and names exactly as quoted. Add nothing."
)
_REFUSAL = re.compile(
    r"\b(?:do(?:es)? not (?:say|state|mention|contain)|not (?:stated|mentioned)|cannot (?:answer|say))\b", re.IGNORECASE
)
REACH = 4  # units between a sentence and the list that it speaks of
_STEP = re.compile(r"\s*(?:[-*•]|\(?\d{1,3}[.)])\s")
_FIRST_STEP = re.compile(r"\s*\(?1[.)]\s")
_MARKUP = re.compile(r"^\s*(?:[-*+•]|\(?\d{1,3}[.)])\s+")


@dataclass(frozen=True, slots=True)
class Cited:
    """One sentence of an answer and the quotes (indices) that it stands on."""

    text: str
    quotes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer made of verbatim sentences."""

    quotes: tuple[Quote, ...]
    sentences: tuple[Cited, ...]


def extract(asked: Asked, evidence: Evidence) -> Draft:
    """Verbatim sentences that answer: the steps of a procedure, else the sentence that scored best."""
    best = evidence.quotes[0]
    core = best.passage.units[best.core]
    # A sentence that ends in a colon answers by the list after it, whatever was asked.
    if asked.procedural or core.text.rstrip().endswith(":"):
        steps = _steps(evidence)
        if steps:
            return Draft(steps, tuple(Cited(readable(quote.text), (at,)) for at, quote in enumerate(steps)))
    return Draft(evidence.quotes, (Cited(readable(core.text), (0,)),))


def readable(text: str) -> str:
    """A quote as a sentence of an answer: on one line, a table row without its bars."""
    line = " ".join(text.split())
    if line.startswith("|"):
        line = ": ".join(cell.strip() for cell in line.strip("|").split("|") if cell.strip())
    return line.replace("**", "")


def _steps(evidence: Evidence) -> tuple[Quote, ...]:
    """The list that holds the best quote or stands right after it, step by step; nothing where there is none."""
    for quote in evidence.quotes:
        run = _run(quote.passage.units, quote.core)
        if run is not None:
            first, last = run
            return tuple(
                Quote(passage=quote.passage, core=at, first=at, last=at, score=quote.score, cosine=quote.cosine)
                for at in range(first, min(last, first + MOST_STEPS - 1) + 1)
            )
    return ()


def _run(units: Sequence[Unit], core: int) -> tuple[int, int] | None:
    """First and last unit of the list nearest to ``core``; None where there is none within reach."""
    runs: list[tuple[int, int]] = []
    for at, unit in enumerate(units):
        if not _STEP.match(unit.text):
            continue
        # A step may go on for a sentence or two before the next one.
        if (
            runs
            and at - runs[-1][1] <= 3
            and not _FIRST_STEP.match(unit.text)
            and not _introduces(units, runs[-1][1], at)
        ):
            runs[-1] = (runs[-1][0], at)
        else:
            runs.append((at, at))
    near = [run for run in runs if run[1] > run[0] and run[0] - REACH <= core <= run[1] + REACH]
    # The list that follows a sentence is the one it speaks of.
    return min(near, key=lambda run: abs(max(run[0] - core, 0)) + 2 * max(core - run[1], 0)) if near else None


def _introduces(units: Sequence[Unit], before: int, at: int) -> bool:
    return any(unit.text.rstrip().endswith(":") for unit in units[before + 1 : at])


def phrase_prompt(question: str, quotes: Sequence[Quote]) -> list[tuple[str, str]]:
    """The conversation (role, content) that asks the writer to phrase an answer from ``quotes``."""
    quoted = "\n".join(
        f"[{at}] {quote.passage.heading + ': ' if quote.passage.heading else ''}{readable(quote.text)}"
        for at, quote in enumerate(quotes, 1)
    )
    return [("system", _WRITER_RULES), ("user", f"Quotes:\n{quoted}\n\nQuestion: {question}")]


def support(asked: Asked, sentence: str, quotes: Sequence[Quote]) -> tuple[int, ...]:
    """The quote that ``sentence`` phrases, as a tuple of its index; empty where none supports it.

    Supported means: every content word, number and code is in the quote (with its heading) or in the question, no
    negation is added or lost, the words mostly keep the quote's order, and something is said that the question did not.
    """
    said = stems(_MARKUP.sub("", sentence))
    if not said or _REFUSAL.search(sentence):
        return ()
    for at, quote in enumerate(quotes):
        source = quote.text
        known = " ".join([source, quote.passage.heading or ""])
        vocabulary = set(stems(known)) | asked.terms
        fresh = set(said) - asked.terms
        if not fresh or not set(said) <= vocabulary or not fresh & set(stems(source)):
            continue
        if not set(numbers(sentence)) <= set(numbers(known)) | asked.numbers:
            continue
        if not set(codes(sentence)) <= set(codes(known)) | asked.codes:
            continue
        closest = max(_units(quote), key=lambda unit: _overlap(said, unit.text))
        if bool(negations(sentence)) != bool(negations(closest.text)):
            continue
        told = [word for word in said if word in set(stems(source))]
        if _kept_order(told, stems(source)) >= ORDER_SHARE * len(told):
            return (at,)
    return ()


def _units(quote: Quote) -> Sequence[Unit]:
    return quote.passage.units[quote.first : quote.last + 1]


def _overlap(said: Sequence[str], text: str) -> float:
    """Share of words in common (Jaccard)."""
    one, other = set(said), set(stems(text))
    return len(one & other) / len(one | other)


def _kept_order(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence (Wagner and Fischer 1974)."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for at, other in enumerate(right, 1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]

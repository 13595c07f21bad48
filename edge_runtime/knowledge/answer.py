"""From quotes to an answer: which sentences to give, how to ask the writer to phrase them, and whether to believe it.

Pure. An answer is built from verbatim sentences; what the writer says is shown only where one quoted sentence says it
in the same words. The check is about words, not meaning: it stops what was invented, swapped or negated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_runtime.knowledge.evidence import Evidence, Passage, Quote, Unit
from edge_runtime.knowledge.words import Asked, codes, negations, numbers, stems, words

DECLINED = "The documents do not say."
MOST_STEPS = 20
ANNOUNCED = 2  # units shown after a sentence that ends in a colon and is followed by no list
ORDER_SHARE = 0.75  # of a phrased sentence's words, those that keep the order of its source
SKIPPED_SHARE = 0.25  # of the stretch that a phrased sentence stands on, what it may leave out
LIMIT_REACH = 4  # words before a number in which a limit stands
LIMITS = frozenset(
    """
    above after almost approximately at before below between beyond exceed exceeds except fewer from least less max
    maximum min minimum more most nearly never only over than under unless until up without
    """.split()  # noqa: SIM905 - as a list of literals it would fill a page
)
_WRITER_RULES = (
    "You answer from the quote alone, in one short sentence, with the quote's own words. "
    "Keep numbers, units and names exactly as quoted. Add nothing."
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
    announces = core.text.rstrip().endswith(":")
    # A sentence that ends in a colon answers by the list after it, whatever was asked.
    if asked.procedural or announces:
        steps = _steps(evidence)
        if steps:
            return Draft(steps, tuple(Cited(readable(quote.text), (at,)) for at, quote in enumerate(steps)))
    if announces:
        return _announced(best)
    return Draft((best,), (Cited(readable(core.text), (0,)),))


def rivals(quotes: Sequence[Quote]) -> tuple[Quote, ...]:
    """Those that say in the words of the first something else, another number or a "not": the documents disagree."""
    first = quotes[0]
    return tuple(_alone(quote, quote.core) for quote in quotes[1:] if _disagree(_core(first), _core(quote)))


def _disagree(one: Unit, other: Unit) -> bool:
    """Rows and entries stand for different things; prose in the same words speaks of one."""
    if one.item or other.item or _frame(one.text) != _frame(other.text):
        return False
    counted = set(numbers(one.text)) != set(numbers(other.text))
    denied = bool(negations(one.text)) != bool(negations(other.text))
    return set(codes(one.text)) == set(codes(other.text)) and counted != denied


def _frame(text: str) -> frozenset[str]:
    return frozenset(word for word in stems(text) if not word[0].isdigit())


def _core(quote: Quote) -> Unit:
    return quote.passage.units[quote.core]


def _announced(quote: Quote) -> Draft:
    """A sentence that ends in a colon and what follows it, such as a line of code: each a quote of its own."""
    last = min(quote.core + ANNOUNCED, len(quote.passage.units) - 1)
    quotes = tuple(_alone(quote, at) for at in range(quote.core, last + 1))
    return Draft(quotes, tuple(Cited(readable(one.text), (at,)) for at, one in enumerate(quotes)))


def _alone(quote: Quote, at: int) -> Quote:
    return Quote(passage=quote.passage, core=at, first=at, last=at, score=quote.score, cosine=quote.cosine)


def readable(text: str) -> str:
    """A quote as a sentence of an answer: on one line, a table row without its bars."""
    line = " ".join(text.split())
    if line.startswith("|"):
        line = ": ".join(cell.strip() for cell in line.strip("|").split("|") if cell.strip())
    return line.replace("**", "")


def _steps(evidence: Evidence) -> tuple[Quote, ...]:
    """The list that holds the best quote or stands right after it, step by step; nothing where there is none."""
    for quote in evidence.quotes:
        section = _section(quote.passage, evidence.passages)
        places = [(passage, at) for passage in section for at in range(len(passage.units))]
        core = next(n for n, place in enumerate(places) if place[0] is quote.passage and place[1] == quote.core)
        run = _run([passage.units[at] for passage, at in places], core)
        if run is not None:
            first, last = run
            steps = places[first : min(last, first + MOST_STEPS - 1) + 1]
            return tuple(_alone(replace(quote, passage=passage), at) for passage, at in steps)
    return ()


def _section(passage: Passage, found: Sequence[Passage]) -> list[Passage]:
    """``passage`` with those before and behind it in its section, as far as they were found: lists may be parted."""
    section = [passage]
    for others in (sorted(found, key=lambda one: one.start), sorted(found, key=lambda one: -one.start)):
        for other in others:
            if section[-1].is_followed_by(other):
                section.append(other)
            elif other.is_followed_by(section[0]):
                section.insert(0, other)
    return section


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


def phrase_prompt(question: str, quote: Quote) -> list[tuple[str, str]]:
    """The conversation (role, content) that asks the writer to phrase an answer from ``quote``."""
    heading = f"{quote.passage.heading}: " if quote.passage.heading else ""
    asked = f"Quote:\n{heading}{readable(quote.text)}\n\nQuestion: {question}"
    return [("system", _WRITER_RULES), ("user", asked)]


def supports(asked: Asked, quote: Quote, sentence: str) -> bool:
    """Whether ``sentence`` says nothing that the best sentence of ``quote``, under its heading, does not say.

    The question lends no word: else its subject would be joined to another one's value. So every content word, number
    and code of ``sentence`` stands in that one sentence or its heading, mostly in that order and with little left out
    between; a negation or a limit ("below 0.4 bar") is kept; and something is added to the question.
    """
    said = stems(_MARKUP.sub("", sentence))
    if not said or not set(said) - asked.terms:
        return False
    core = quote.passage.units[quote.core]
    return _says(core.text, quote.passage.heading or "", sentence, said)


def backing(asked: Asked, quotes: Sequence[Quote], sentence: str) -> int | None:
    """Which of ``quotes`` supports ``sentence``, all of it: what two of them say together none of them says."""
    return next((at for at, quote in enumerate(quotes) if supports(asked, quote, sentence)), None)


def _says(source: str, heading: str, sentence: str, said: Sequence[str]) -> bool:
    known = f"{heading} {source}"
    if not set(said) <= set(stems(known)) or not set(said) & set(stems(source)):
        return False
    if not set(numbers(sentence)) <= set(numbers(known)) or not set(codes(sentence)) <= set(codes(known)):
        return False
    if bool(negations(sentence)) != bool(negations(source)):
        return False
    if not _limits(source, sentence) <= set(words(sentence)):
        return False
    source_stems = stems(source)
    told = [word for word in said if word in set(source_stems)]
    skipped = _skipped(set(told), source_stems)
    return (
        _kept_order(told, source_stems) >= ORDER_SHARE * len(told)
        and len(skipped) <= SKIPPED_SHARE * (len(skipped) + len(told))
        and not any(character.isdigit() for word in skipped for character in word)
    )


def _skipped(told: set[str], source: Sequence[str]) -> list[str]:
    """What the shortest stretch of ``source`` with all of ``told`` holds besides: an alternative, if it is much.

    "The drive end takes 30 g and the other end 20 g" must not become "the drive end takes 20 g".
    """
    best: Sequence[str] = source
    last: dict[str, int] = {}
    for at, word in enumerate(source):
        if word in told:
            last[word] = at
            if len(last) == len(told) and at + 1 - min(last.values()) < len(best):
                best = source[min(last.values()) : at + 1]
    return [word for word in best if word not in told]


def _limits(source: str, sentence: str) -> set[str]:
    """Words such as "below" that stand just before a number of ``source`` which ``sentence`` repeats."""
    tokens = words(source)
    repeated = set(words(sentence))
    return {
        word
        for at, token in enumerate(tokens)
        if token in repeated and token[0].isdigit()
        for word in tokens[max(0, at - LIMIT_REACH) : at]
        if word in LIMITS
    }


def _kept_order(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence (Wagner and Fischer 1974)."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for at, other in enumerate(right, 1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]

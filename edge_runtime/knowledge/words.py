"""What a question's words are: content stems, names, codes and numbers. Pure; English first, harmless elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Closed-class words carry no subject; a question is compared by what is left.
STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being between both but by can could did
    do does doing each every for from get gets give had has have having he her here hers him his how i if in into
    is it its itself just many may me might mine more most much must my no nor not of off on once one or other our
    ours out over own please same shall she should so some such tell than that the their theirs them then there
    these they this those through to too under until up us very was we were what when where whether which while
    who whom whose why will with would you your yours
    """.split()  # noqa: SIM905 - as a list of literals it would fill a page
)
# Tried from the longest: a light stemmer after Porter (1980), step 1, enough to match plurals and tenses.
_SUFFIXES = ("ations", "ation", "ments", "ment", "ings", "ing", "edly", "ed", "ies", "es", "s", "ly")
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
CODE = re.compile(r"\b(?=[A-Za-z-]*\d)(?=[\d-]*[A-Za-z])[A-Za-z\d]+(?:-[A-Za-z\d]+)*\b")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s)")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?:st|nd|rd|th|s)?(?!\w)")
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_NEGATION = re.compile(r"\b(?:no|non|not|never|none|nor|neither|without|cannot)\b|n't\b", re.IGNORECASE)


def stem(word: str) -> str:
    """A light stem of a lower-case word; words with digits are left alone."""
    if any(character.isdigit() for character in word):
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if word.endswith("e") and len(word) > 4:
        word = word[:-1]
    return word


def stems(text: str) -> list[str]:
    """Stems of the content words of ``text``, in order."""
    return [stem(word) for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def codes(text: str) -> list[str]:
    """Identifiers that mix letters and digits (E17, P-12), lower-cased."""
    return [code.group().lower() for code in find_codes(text)]


def find_codes(text: str) -> list[re.Match[str]]:
    """Where the identifiers of :func:`codes` stand."""
    return [code for code in CODE.finditer(text) if not _ORDINAL.fullmatch(code.group())]


def numbers(text: str) -> list[str]:
    """Numbers that stand alone, as written, without thousands separators, ordinal endings and the plural of decades."""
    return [_plain(number) for number in _NUMBER.findall(text)]


def negations(text: str) -> int:
    return len(_NEGATION.findall(text))


def _plain(number: str) -> str:
    number = re.sub(r"(?:st|nd|rd|th|s)$", "", number)
    return re.sub(r",(?=\d{3}(?:\D|$))", "", number)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question is about, besides its vector."""

    text: str
    terms: frozenset[str]  # stems of its content words
    names: frozenset[str]  # capitalised words after the first, lower-cased
    codes: frozenset[str]
    numbers: frozenset[str]
    procedural: bool  # asks for steps
    quantity: bool  # asks for a number


_PROCEDURE = re.compile(
    r"\bhow (?:do|does|can|should|must|would|to|is|are)\b|\bwhat (?:are the|is the) (?:steps|procedure|sequence)\b"
    r"|\bwhat (?:do|must|should|can) (?:i|we|you) do\b|\bwhat (?:must|should) be done\b"
    r"|\bsteps (?:to|for)\b|\bprocedure (?:to|for)\b",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"\bhow (?:many|much|long|often|far|old|tall|heavy|deep|high|hot)\b|\bwhat (?:year|percentage|date)\b",
    re.IGNORECASE,
)
_MEASURE = re.compile(
    r"\bhow (?:is|are|do|does|can) (?:\w+ )?(?:know|big|large|long|old|far|many|much)\b", re.IGNORECASE
)


def understand(question: str) -> Asked:
    """Take a question apart; nothing here decides anything."""
    first = _WORD.search(question)
    rest = question[first.end() :] if first else ""
    return Asked(
        text=question,
        terms=frozenset(stems(question)),
        names=frozenset(name.lower() for name in _NAME.findall(rest)),
        codes=frozenset(codes(question)),
        numbers=frozenset(numbers(question)),
        procedural=bool(_PROCEDURE.search(question)) and not _MEASURE.search(question),
        quantity=bool(_QUANTITY.search(question)),
    )

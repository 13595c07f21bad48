"""Takes a query apart: quoted phrases, codes, words, and whether it is a question. Pure; no index, no weights.

English first; without spaces between words each stretch of letters is one word, as in the full-text index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

READ_WORDS = 256  # of a longer query the words after these are left out
READ_CHARS = 16_384

Kind = Literal["word", "code", "phrase"]

# Function words; what is asked of a manual ("off", "over", "under", "not", "after") stays.
_FUNCTION_WORDS = """
a about am an and any are as at be been being but by can could did do does doing for from had has have having he her
hers him his how i if in into is it its itself me my of on or our ours s she should so some such t than that the their
theirs them then there these they this those to us was we were what when where which who whom whose why will with
would you your yours tell please don doesn didn isn aren wasn weren couldn shouldn wouldn won ll ve re
"""
_ASKING_WORDS = """
am are can could did do does had has have how is may shall should was were what when where which who whom whose why will
would
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
_ASKING = frozenset(_ASKING_WORDS.split())
_WORD = re.compile(r"\w+", re.UNICODE)
_QUOTED = re.compile(
    "\"([^\"]{1,300})\"|“([^“”]{1,300})”|„([^„“”]{1,300})[“”]|«([^«»]{1,300})»|`([^`]{1,300})`|(?<!\\w)'([^']{2,300})'(?!\\w)"
)
_TOKEN = re.compile(r"[^\s\"“”„«»`,;!?(){}\[\]<>|]+(?:\(\))?")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s)", re.IGNORECASE)
_CODES = re.compile(
    r"""
      (?=[\w.:-]*\d)(?=[\w.:-]*[^\W\d_])(?!\S*[a-z]{4})[^\W_]+(?:[-.:][^\W_]+)*  # letters and digits: E17, P-12, v1.2
    | \w*[^\W_]_\w+ | _+\w+                       # snake_case, __init__
    | --?[^\W\d_][\w-]+                           # an option: --no-pager
    | \w+(?:::\w+)+                               # std::vector
    | (?:[~.]{0,2}/|[A-Za-z]:\\|\\\\)\S+          # a path: /etc/fstab, ./run, C:\x
    | [^\W\d_][\w-]*(?:\.[\w-]{2,})+              # os.path, file.txt
    | [^\W\d_]{2,}[\w-]*\.[^\W\d_]                # main.c
    | \w+\(\)                                     # a call: malloc()
    | [a-z]+[A-Z]\w*                              # camelCase
    | [A-Z][a-z]+(?:[A-Z][a-z]+){1,}[A-Z]?        # CamelCase
    | \d+(?:[-.]\d+)+                             # a part number, a version, an address
    | \d{5,}                                      # a serial number
    | 0x[0-9a-fA-F]+
    """,
    re.VERBOSE,
)
_CAPITALS = re.compile(r"[A-Z]{3,}")


@dataclass(frozen=True, slots=True)
class Term:
    """What is looked for: a word, or several in a row (a phrase, a code of several parts), a space between them."""

    text: str  # letters, digits, underscores and single spaces alone
    kind: Kind
    of: str = ""  # the code or phrase that a word is a part of


@dataclass(frozen=True, slots=True)
class Wording:
    """A query, taken apart."""

    terms: tuple[Term, ...]  # without repetition: phrases first, then codes, then words in their order
    stopped: tuple[str, ...]  # words that mean nothing by themselves
    unread: int  # words beyond those that are read
    quoted: tuple[str, ...]  # as written, without the marks
    codes: tuple[str, ...]
    words: int  # all of them, with repetition
    question: bool  # asked as people ask each other


def dissect(text: str) -> Wording:
    """Take ``text`` apart; nothing in it is syntax but pairs of quotation marks."""
    read = text[:READ_CHARS]
    quoted = tuple(dict.fromkeys(" ".join(filter(None, match)) for match in _QUOTED.findall(read)))
    quoted = tuple(phrase for phrase in quoted if _WORD.search(phrase))
    codes = _codes(_QUOTED.sub(" ", read))
    every = _WORD.findall(read)
    found: dict[str, Term] = {}
    for phrase in quoted:
        _add(found, Term(_joined(phrase), "phrase"))
    for code in codes:
        _add(found, Term(_joined(code), "code"))
    inside = {part.casefold(): whole for whole in (*codes, *quoted) for part in _parts(whole)}
    stopped: dict[str, None] = {}
    for word in every[:READ_WORDS]:
        if word.casefold() in STOP_WORDS:
            stopped.setdefault(word)
        elif (whole := inside.get(word.casefold(), "")) == "" or len(word) > 1:
            _add(found, Term(word, "word", whole))
    if not found:  # "who is it": nothing else is left
        for word in stopped:
            _add(found, Term(word, "word"))
        stopped = {}
    return Wording(
        terms=tuple(found.values()),
        stopped=tuple(stopped),
        unread=max(len(every) - READ_WORDS, 0) + len(_WORD.findall(text[READ_CHARS:])),
        quoted=quoted,
        codes=codes,
        words=len(every),
        question=_is_question(text, every),
    )


def _add(found: dict[str, Term], term: Term) -> None:
    if term.text:
        found.setdefault(term.text.casefold(), term)


def _joined(text: str) -> str:
    return " ".join(_WORD.findall(text)[:READ_WORDS])


def _parts(text: str) -> list[str]:
    words = _WORD.findall(text)
    return words if len(words) > 1 else []


def _codes(text: str) -> tuple[str, ...]:
    """Identifiers, error codes, part numbers and paths, as written."""
    tokens = [token.rstrip(".:'") for token in _TOKEN.findall(text)]
    shouted = sum(token.isupper() for token in tokens) > len(tokens) / 2 and len(tokens) > 2
    return tuple(
        dict.fromkeys(
            token
            for token in tokens
            if (_CODES.fullmatch(token) and not _ORDINAL.fullmatch(token))
            or (_CAPITALS.fullmatch(token) and not shouted)
        )
    )


def _is_question(text: str, words: list[str]) -> bool:
    if not words:
        return False
    asks = words[0].casefold() in _ASKING or text.rstrip().endswith(("?", "？", "؟"))
    # A sentence has function words; a list of keywords has none.
    plain = sum(word.casefold() in STOP_WORDS for word in words)
    return (asks and len(words) >= 3) or (len(words) >= 6 and plain >= len(words) / 4)

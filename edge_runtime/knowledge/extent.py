"""How much a question asks for: one thing, a list, a summary, or several things at once. Pure; English first.

What is not recognised is one question and is answered as one, so a question in another shape loses nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edge_runtime.knowledge.words import CODE, STOP_WORDS, find_codes, stems

Kind = Literal["one", "list", "summary", "parts"]
MOST_PARTS = 4

_ASKS = r"(?:what|how|which|when|where|who|whom|whose|why)\b"
_POLITE = r"^\s*(?:please\s+|(?:can|could|would) you\s+(?:please\s+)?|i (?:want|need) (?:you )?to\s+)*"
_CLAUSE = re.compile(rf"\?+\s+(?=\w)|[,;]?\s+and\s+(?=(?:then\s+|also\s+)?{_ASKS})", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?]\s+")
_PRONOUN = re.compile(r"\b(?:it|them|this one|that one|this|they)\b(?!\s+(?:is|are|that)\b)", re.IGNORECASE)
_REFERENT = re.compile(rf"(?:\b[a-z]+\s+)?{CODE.pattern}")

_END = r"\s*[.?!]*\s*$"
_COMPARED = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"{_POLITE}compare\s+(?P<a>.+?)\s+(?:and|with|to|against|versus|vs\.?)\s+(?P<b>.+?){_END}",
        rf"\bdifferences?\s+between\s+(?P<a>.+?)\s+and\s+(?P<b>.+?){_END}",
        rf"^\s*how\s+(?:do|does|did|is|are)\s+(?P<a>.+?)\s+differ(?:ent)?\s+(?:from|to|than)\s+(?P<b>.+?){_END}",
        rf"^\s*how\s+(?:do|does|did)\s+(?P<a>.+?)\s+and\s+(?P<b>.+?)\s+(?:differ|compare){_END}",
        rf"^\s*what\s+distinguishes\s+(?P<a>.+?)\s+from\s+(?P<b>.+?){_END}",
        rf"^\s*(?P<a>[^?]+?)\s+(?:versus|vs\.?)\s+(?P<b>.+?){_END}",
    )
)
# Between two codes of one run: "E17 and E21", "pump P11, pump P12 or P13".
_JOINED = re.compile(r"\s*(?:,\s*(?:and|or)\b|,|/|&|and\b|or\b)\s*((?:[a-z][a-z-]*\s+){0,4})$", re.IGNORECASE)
_JOINED_TO = re.compile(
    r"\s*(?:,\s*(?:and|or)\b|,|/|&|(?:and|or|with|to|from|than|against|versus|vs\.?)(?=\s))\s*((?:[a-z][a-z-]*\s+){0,4})$",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*,\s*(?:and\s+)?")
_TWINS = re.compile(r"\b((?:the\s+)?[\w-]+\s+([a-z]+))\s+(?:and|or)\s+((?:the\s+)?[\w-]+\s+\2)\b", re.IGNORECASE)
_LISTED = re.compile(
    rf"{_POLITE}(?:list|enumerate|name all|name the|(?:give|show|tell)(?: me)? (?:all|every|a list of|the list of))\s+"
    rf"(?:me\s+)?(?:all\s+|every\s+|each\s+)?(?:of\s+)?(?:the\s+)?(?P<what>.+?){_END}",
    re.IGNORECASE | re.DOTALL,
)
_PLURAL = r"(?:[a-z][\w-]+[a-hj-rtv-z]s|people|persons|men|women|children|data|criteria)"
_DETERMINER = r"(?:the|an?|its?|this|that|these|those|their|your|our|my|his|her|not)\b"
_AUXILIARY = r"(?:are|were|do|did|have|had|must|can|could|should|may|might|will|would|need|apply|belong|exist)\b"
_SEVERAL = re.compile(
    rf"\bwhich\s+(?:of\s+the\s+)?(?:[a-z][\w-]*\s+){{0,2}}?{_PLURAL}\s+(?!{_DETERMINER})\w"
    rf"|\bwhat\s+(?:[a-z][\w-]*\s+){{0,2}}?{_PLURAL}\s+{_AUXILIARY}"
    rf"|\b(?:what|which|who)\s+(?:are|were)\s+(?:all\s+)?(?:the|its|their)\s+(?:[\w-]+\s+){{0,2}}?{_PLURAL}\b"
    r"|\bwhat\s+(?:all\s+)?(?:has\s+)?happened\s+(?:to|with)\b",
    re.IGNORECASE,
)
_SUMMARY = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"{_POLITE}(?:summari[sz]e|sum up|outline)\s+(?:what is (?:said|written) about\s+)?(?P<what>.+?){_END}",
        rf"{_POLITE}(?:give|write|make)(?: me)? an? (?:\w+ )?(?:summary|overview|outline) of\s+(?P<what>.+?){_END}",
        rf"{_POLITE}tell me (?:everything |all |more )?about\s+(?P<what>.+?){_END}",
        rf"^\s*what (?:do|does) (?:the |these |our |your )?[\w -]{{1,30}}? say (?:about|on)\s+(?P<what>.+?){_END}",
        rf"^\s*what is (?:known|said|written) about\s+(?P<what>.+?){_END}",
    )
)


@dataclass(frozen=True, slots=True)
class Extent:
    """``whole`` is what to look for, without the words that only say how to answer; ``parts`` are questions in it."""

    kind: Kind
    whole: str
    parts: tuple[str, ...] = ()
    compares: bool = False  # the parts are wanted side by side, also where one sentence names them all
    joint: bool = False  # one sentence may answer all the parts


def measure(question: str) -> Extent:
    """Tell how much ``question`` asks for; a doubtful one asks for one thing."""
    clauses = _clauses(question)
    if len(clauses) > 1:
        return Extent("parts", question, clauses)
    for pattern in _COMPARED:
        if found := pattern.search(question):
            body = question[found.start("a") : found.end("b")]
            parts = _by_code(body, _JOINED_TO) or _sides(found["a"], found["b"])
            return Extent("parts", body, tuple(map(_asked, parts)), compares=True, joint=True)
    if parts := _by_code(question, _JOINED) or _twins(question):
        return Extent("parts", question, parts, joint=True)
    for pattern in _SUMMARY:
        if (found := pattern.search(question)) and stems(found["what"]):
            return Extent("summary", found["what"])
    if (found := _LISTED.search(question)) and stems(found["what"]):
        return Extent("list", found["what"])
    return Extent("list" if _SEVERAL.search(question) else "one", question)


def _asked(thing: str) -> str:
    return f"What is {thing}?"


def _clauses(question: str) -> tuple[str, ...]:
    """The questions that stand one after the other; what "it" is in a later one is put in its place."""
    pieces = [piece.strip() for piece in _CLAUSE.split(question.strip())]
    if not 1 < len(pieces) <= MOST_PARTS or not all(stems(piece) for piece in pieces):
        return ()
    referent = _referent(pieces[0])
    later = [_PRONOUN.sub(lambda _: referent, piece, count=1) if referent else piece for piece in pieces[1:]]
    return (pieces[0], *later)


def _referent(piece: str) -> str:
    """What "it" stands for after ``piece``: the first thing with a code in its last sentence that has one."""
    for sentence in reversed(_SENTENCE.split(piece)):
        if found := _REFERENT.search(sentence):
            before, _, thing = found.group().rpartition(" ")
            return thing if before in STOP_WORDS else found.group()
    return ""


def _by_code(text: str, joined: re.Pattern[str]) -> tuple[str, ...]:
    """``text`` once for each code of a run such as "E17, E21 and E23"; nothing where there is no run."""
    run: list[tuple[re.Match[str], str]] = []
    for code in find_codes(text):
        between = joined.fullmatch(text, run[-1][0].end(), code.start()) if run else None
        if between is not None:
            run.append((code, between.group(1)))
        elif len(run) > 1:
            break
        else:
            run = [(code, "")]
    if len({code.group().lower() for code, _ in run}) < 2 or len(run) > MOST_PARTS:
        return ()
    before, after = text[: run[0][0].start()], text[run[-1][0].end() :]
    return tuple(f"{_led(before, own)}{code.group()}{after}".strip() for code, own in run)


def _led(before: str, own: str) -> str:
    """``before`` with as many of its last words replaced as a code brings of its own ("pump P12 and *valve* V3")."""
    if not own.strip():
        return before
    words = before.split()
    kept = words[: max(len(words) - len(own.split()), 0)]
    return " ".join([*kept, own.strip()]) + " "


def _sides(one: str, other: str) -> tuple[str, ...]:
    """The things of a comparison, each with what it shares with the others: "the flow of P11" and "[...] P13"."""
    things = [*_COMMA.split(one), other]
    head, of, _ = things[0].rpartition(" of ")
    if of and not any(" of " in thing for thing in things[1:]):
        things[1:] = [f"{head} of {thing}" for thing in things[1:]]
    _, of, tail = other.rpartition(" of ")
    if of and not any(" of " in thing for thing in things[:-1]):
        things[:-1] = [f"{thing} of {tail}" for thing in things[:-1]]
    last = other.rsplit(maxsplit=1)[-1]
    if len(one.split()) < len(other.split()) and not of and last.isalpha() and last.lower() not in one.lower().split():
        things[:-1] = [f"{thing} {last}" for thing in things[:-1]]
    return tuple(things[:MOST_PARTS])


def _twins(text: str) -> tuple[str, ...]:
    """``text`` once for each of two things with one noun: "the gland bolts and the coupling bolts"."""
    found = _TWINS.search(text)
    if found is None:
        return ()
    before, after = text[: found.start()], text[found.end() :]
    return f"{before}{found[1]}{after}", f"{before}{found[3]}{after}"

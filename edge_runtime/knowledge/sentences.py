"""Where sentences begin and end in English prose, lists, tables and logs. Pure.

Rules, not a model: a full stop ends a sentence unless an abbreviation, an initial or a list number precedes it. Each
list item starts a sentence; each table row, log line and ``key: value`` line is one. What a page break parted stays so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge_runtime.knowledge.documents import Kind, ParsedDocument, Span

_LOOKED_AT = 400  # characters of a line that tell what kind of line it is
MAX_CHARS = 1000  # a longer one is cut at white space: it is no sentence, and nobody could quote it
_CODE_CHARS = 400  # of code that is quoted together

_LINE = re.compile(r"[^\n]+")
_ITEM = re.compile(r"\s*(?:[-*+•‣▪◦–—]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)])\s+(?=\S)|\s*>\s+")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_RULE = re.compile(r"\s*[-=_*~+|: ]{3,}$")
_ROW = re.compile(r"\s*\||.*(?:\S\s*\|\s*\S.*\|)|[^\t]+\t[^\t]+\t|.*\S {3,}\S+.* {3,}\S")
_TIME = re.compile(
    r"\s*[\[(<]?(?:\d{4}[-/.]\d\d[-/.]\d\d|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d\d:\d\d(?::\d\d)?\b"
    r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\w*\.? +\d{1,2} +\d\d:\d\d)"
)
_LEVEL = re.compile(r"\s*\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|ALARM|EVENT)\b[\]:]?")
_PAIR = re.compile(r"\s*[A-Z0-9][^:.?!\n]{0,48}:\s+\S.{0,100}$")
# Linear on any text, also on a million dots: a match starts only where a run of marks does.
_STOP = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]»*_]*(?:\[\d+\])*(?=\s)|[。！？]+")
_OPENING = re.compile(r"\s++[\"'“‘(\[«*_]*([^\s])")
_WORD_BEFORE = re.compile(r"([^\s(\[\"'“‘]+)$")

# Never the end of a sentence, whatever follows.
_NEVER_LAST = """
mr mrs ms dr prof sr jr st gen col lt sgt capt cmdr adm rev hon gov sen rep pres mt ft messrs vs cf viz e.g i.e eg ie
al resp incl excl esp
"""
_TITLES = frozenset(_NEVER_LAST.split())
# Not the end where a number follows.
_BEFORE_NUMBERS = """
no nos nr fig figs eq eqs sec secs sect ch chap p pp par para vol vols art app approx ca c circa tab tbl rev ver v max
min nom typ ref refs item pos pt ex op cl
"""
_COUNTED = frozenset(_BEFORE_NUMBERS.split())


def split(text: str, start: int = 0, *, kind: Kind = "prose") -> list[Span]:
    """The sentences of ``text``, in order, without the white space around them; offsets count from ``start``.

    Of rows each line is one; of code, a few lines without a blank one between them. Every character that is not white
    space lies in exactly one of them.
    """
    if kind == "prose":
        found = [span for block in _blocks(text) for span in _sentences(text, *block)]
    else:
        found = [span for block in _stretches(text, kind) for span in _trimmed(text, *block)]
    return [Span(start + first, start + last) for first, last in found]


def sentences(document: ParsedDocument) -> list[Span]:
    """The sentences of all its sections, each cut after its kind."""
    return [
        span
        for section in document.sections
        for span in split(document.text[section.start : section.end], section.start, kind=section.kind)
    ]


def _stretches(text: str, kind: Kind) -> Iterator[tuple[int, int]]:
    first = last = -1
    for match in _LINE.finditer(text):
        if first >= 0 and (kind == "rows" or match.start() > last + 1 or match.end() - first > _CODE_CHARS):
            yield first, last
            first = -1
        if match.group().strip():
            first = match.start() if first < 0 else first
            last = match.end()
        elif first >= 0:
            yield first, last
            first = -1
    if first >= 0:
        yield first, last


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Stretches that no sentence crosses: (start, end, is prose)."""
    first = last = widest = 0
    open_block = prose = False
    previous = ""
    for match in _LINE.finditer(text):
        line = match.group()
        if not line.strip():
            continue
        whole = _whole_line(line) or bool(_PAIR.match(line, 0, _LOOKED_AT) and not _goes_on(text, match.end()))
        gap = text.count("\n", last, match.start()) > 1 if open_block else True
        if gap or whole or not prose or _ITEM.match(line, 0, _LOOKED_AT) or _deliberate(previous, line, widest):
            if open_block:
                yield first, last, prose
            first, widest, open_block, prose = match.start(), 0, True, not whole
        last, previous, widest = match.end(), line, max(widest, _widest(text, match.start()), len(line))
    if open_block:
        yield first, last, prose


def _widest(text: str, position: int) -> int:
    """Length of the line after the one at ``position``: a paragraph's first line may be its shortest."""
    here = text.find("\n", position)
    if here < 0:
        return 0
    end = text.find("\n", here + 1)
    return (end if end >= 0 else len(text)) - here - 1


def _whole_line(line: str) -> bool:
    return any(pattern.match(line, 0, _LOOKED_AT) for pattern in (_HEADING, _RULE, _ROW, _TIME, _LEVEL))


def _goes_on(text: str, end: int) -> bool:
    """Whether the line that ends at ``end`` is prose that was wrapped: the next one opens in lower case."""
    following = text[end + 1 : end + 2]
    return following.islower()


def _deliberate(previous: str, line: str, widest: int) -> bool:
    """Whether the line break was meant: the next line's first word would have fitted, and it opens like a sentence."""
    opening = line.lstrip()
    word = opening.split(maxsplit=1)[0]
    return len(previous.rstrip()) + 1 + len(word) <= 0.8 * min(widest, 120) and not opening[0].islower()


def _sentences(text: str, start: int, end: int, prose: bool) -> Iterator[tuple[int, int]]:
    if not prose:
        yield from _trimmed(text, start, end)
        return
    item = _ITEM.match(text, start, end)
    first = start
    for stop in _STOP.finditer(text, item.end() if item else start, end):
        if stop.end() < end and _ends(text, stop, end):
            yield from _trimmed(text, first, stop.end())
            first = stop.end()
    yield from _trimmed(text, first, end)


def _ends(text: str, stop: re.Match[str], end: int) -> bool:
    if stop.group()[0] in "。！？":
        return True
    opening = _OPENING.match(text, stop.end(), end)
    if opening is None:
        return True
    character = opening.group(1)
    if character.islower():
        return False
    if stop.group()[0] != "." or stop.group().startswith(".."):
        return True
    before = _WORD_BEFORE.search(text, max(0, stop.start() - 40), stop.start())
    word = before.group(1).lower() if before else ""
    if word in _TITLES:
        return False
    if len(word) == 1 and text[stop.start() - 1].isupper():
        # An initial, unless a number stands before it: then it is a unit (0.25 A, 230 V).
        return text[max(0, stop.start() - 3) : stop.start() - 1].strip().isdigit()
    return not (word in _COUNTED and (character.isdigit() or character in "#("))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        while start < end and text[start].isspace():
            start += 1
        last = end
        if end - start > MAX_CHARS:
            space = max(text.rfind(mark, start, start + MAX_CHARS) for mark in " \n\t")
            last = space if space > start else start + MAX_CHARS
        following = last
        while last > start and text[last - 1].isspace():
            last -= 1
        if last > start:
            yield start, last
        start = following

"""Cuts a document's sections into chunks by the embedder's own token count. Pure; never across sections.

A short section is one chunk. A longer one is cut at a paragraph's end, else a sentence's, else a token's, so that most
chunks hold two thirds of what they may; neighbours in prose overlap. Rows of a table are never cut while one fits.
"""

from __future__ import annotations

import bisect
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.knowledge.documents import Chunk, Section
from edge_runtime.knowledge.sentences import split

MAX_TOKENS = 254  # one window of MiniLM
LEAST_SHARE = 2 / 3  # of that is aimed at where a section is cut
OVERLAP_TOKENS = 32
TINY_TOKENS = 40  # a section this short goes with its first subsection: a bare heading answers nothing
SMALL_CODE_TOKENS = 100  # definitions this short go together: a getter alone answers nothing either
_RANKED_CHARS = 40
_PART_CHARS = 50_000
_LONG_TOKEN = 64  # characters; the tokenizer makes one "unknown" of a very long word

Offsets = Callable[[str], Sequence[tuple[int, int]]]
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_LINE_END = re.compile(r"\n")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """One section's tokens: where each starts in the document, and which of them open what should stay whole.

    ``wide`` are the first tokens of paragraphs, ``narrow`` of sentences or, in code and tables, of lines.
    """

    starts: array[int]
    end: int
    wide: list[int]
    narrow: list[int]

    def position(self, index: int) -> int:
        return self.starts[index] if index < len(self.starts) else self.end


def chunk(
    text: str,
    sections: Sequence[Section],
    offsets: Offsets,
    *,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP_TOKENS,
) -> list[Chunk]:
    """The chunks of a document, in order.

    ``offsets`` gives the character span of each token of a text, without special tokens. Every character that is not
    white space lies in a chunk; no chunk has more than ``max_tokens`` tokens.
    """
    if not 0 <= overlap < max_tokens // 2:
        raise ValueError(f"an overlap of {overlap} tokens does not fit chunks of {max_tokens}")
    chunks: list[Chunk] = []
    for section in _joined(text, sections, offsets, max_tokens):
        for start, end, count in _cut(text, section, offsets, max_tokens=max_tokens, overlap=overlap):
            chunks.append(Chunk(start, end, section.heading, section.page, count))
    return chunks


def _joined(text: str, sections: Sequence[Section], offsets: Offsets, max_tokens: int) -> Iterator[Section]:
    """Sections, where one with next to no text is joined to what follows it: its subsection, or more small code."""
    waiting: Section | None = None
    waits = 0  # tokens of it
    for section in sections:
        current = section
        count = _few(text, current, offsets)
        if waiting is not None:
            merged = _merged(waiting, waits, current, count)
            if merged is None:
                yield waiting
            else:
                current, count = merged, None if count is None else count + waits
            waiting = None
        most = min(SMALL_CODE_TOKENS if current.kind == "code" else TINY_TOKENS, max_tokens)
        if current.heading and current.kind != "rows" and count is not None and count < most:
            waiting, waits = current, count
        else:
            yield current
    if waiting is not None:
        yield waiting


def _few(text: str, section: Section, offsets: Offsets) -> int | None:
    """The tokens of a short section; None: there are many. A token has at least one character, few more than twelve."""
    body = text[section.start : section.end]
    most = SMALL_CODE_TOKENS if section.kind == "code" else TINY_TOKENS
    return len(offsets(body)) if len(body) < most * 12 else None


def _merged(waiting: Section, waits: int, current: Section, count: int | None) -> Section | None:
    """The two as one section, or None: they are better apart."""
    if current.page != waiting.page or current.kind != waiting.kind:
        return None
    if current.heading[: len(waiting.heading)] == waiting.heading and waits < TINY_TOKENS:
        return Section(waiting.start, current.end, current.heading, current.page, current.kind)
    if current.kind != "code" or count is None or waits + count > SMALL_CODE_TOKENS:
        return None
    same = [one for one, other in zip(waiting.heading, current.heading, strict=False) if one == other]
    shared = waiting.heading[: len(same)] if waiting.heading[: len(same)] == tuple(same) else waiting.heading[:1]
    return Section(waiting.start, current.end, shared, current.page, current.kind)


def _cut(
    text: str, section: Section, offsets: Offsets, *, max_tokens: int, overlap: int
) -> Iterator[tuple[int, int, int]]:
    tokens = _tokens(text, section, offsets)
    shared = overlap if section.kind == "prose" else 0  # a row or a line of code that is cut off misleads
    total = len(tokens.starts)
    first = 0
    start = section.start
    while True:
        last = total if total - first <= max_tokens else _boundary(text, tokens, first, max_tokens, shared)
        while True:
            begin, end = _stripped(text, start, tokens.position(last))
            count = len(offsets(text[begin:end]))
            if count <= max_tokens or last == first + 1:
                break
            # A word cut in two may count more than its parts did inside the whole.
            last = max(first + 1, last - max(1, count - max_tokens))
        if begin < end:
            yield begin, end, count
        if last >= total:
            return
        first = max(first + 1, _word_start(text, tokens, last, shared))
        start = tokens.position(first)


def _boundary(text: str, tokens: _Tokens, first: int, max_tokens: int, overlap: int) -> int:
    """The token before which to cut: the last wide gap that fits, else a narrow one, else as many as fit."""
    most = first + max_tokens
    least = first + int(max_tokens * LEAST_SHARE)
    rest = len(tokens.starts) - first
    if rest < 2 * max_tokens - overlap:  # two chunks will do: near the middle, or the second is a scrap
        middle = first + (rest + overlap) // 2
        least, most = min(least, middle), min(most, middle + max_tokens // 6)
    wide = bisect.bisect_right(tokens.wide, most) - 1
    if wide >= 0 and tokens.wide[wide] >= least:
        return tokens.wide[wide]
    narrow = tokens.narrow[bisect.bisect_left(tokens.narrow, least) : bisect.bisect_right(tokens.narrow, most)]
    if narrow:
        return min(narrow, key=lambda index: _rank(text, tokens.position(index)))
    early = bisect.bisect_right(tokens.narrow, most) - 1
    if early >= 0 and tokens.narrow[early] > first + (max_tokens // 2 if overlap else 0):
        return tokens.narrow[early]
    return most


def _rank(text: str, position: int) -> int:
    """Of many places to cut, one is taken by the words that follow it: where words are put in before, the cuts after
    them soon fall where they fell, and those chunks need no new vectors (content-defined chunking, LBFS, SOSP 2001)."""
    return zlib.crc32(text[position : position + _RANKED_CHARS].encode("utf-8", "surrogatepass"))


def _word_start(text: str, tokens: _Tokens, last: int, overlap: int) -> int:
    """The first token of the next chunk: ``overlap`` before ``last``, and a few fewer where that is inside a word."""
    for index in range(last - overlap, last):
        position = tokens.position(index)
        if position == 0 or text[position - 1].isspace():
            return index
    return last - overlap


def _tokens(text: str, section: Section, offsets: Offsets) -> _Tokens:
    body = text[section.start : section.end]
    starts = array("q")  # a section may hold millions
    for at, part in _parts(body):
        for first, last in offsets(part):
            begin = section.start + at + first
            if not starts or begin > starts[-1]:
                starts.extend(range(begin, max(section.start + at + last, begin + 1), _LONG_TOKEN))
    lines = section.kind != "prose"
    wide = [] if section.kind == "rows" else [section.start + gap.end() for gap in _PARAGRAPH.finditer(body)]
    narrow = (
        [section.start + gap.end() for gap in _LINE_END.finditer(body)]
        if lines
        else [span.start for span in split(body, section.start)]
    )
    return _Tokens(starts, section.end, _indices(starts, wide), _indices(starts, narrow))


def _indices(starts: array[int], positions: list[int]) -> list[int]:
    return sorted({bisect.bisect_left(starts, position) for position in positions})


def _parts(body: str) -> Iterator[tuple[int, str]]:
    """``body`` in parts cut at white space, which no token crosses: a tokenizer needs much memory."""
    at = 0
    while at < len(body):
        end = at + _PART_CHARS
        if end < len(body):
            space = max(body.rfind(mark, at, end) for mark in " \n")
            end = space if space > at else end
        yield at, body[at:end]
        at = end


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end

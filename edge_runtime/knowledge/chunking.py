"""Cuts a document's sections into chunks by the embedder's own token count. Pure; never across sections.

A short section is one chunk. A longer one is cut at a paragraph's end, else a sentence's, else a token's, so that
chunks hold 400 to 600 tokens and neighbours share 50.
"""

from __future__ import annotations

import bisect
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.knowledge.documents import Chunk, Section
from edge_runtime.knowledge.sentences import split

MAX_TOKENS = 600
MIN_TOKENS = 400  # aimed at where a section is cut
OVERLAP_TOKENS = 50
TINY_TOKENS = 40  # a section this short goes with its first subsection: a bare heading answers nothing
_PART_CHARS = 50_000
_LONG_TOKEN = 64  # characters; the tokenizer makes one "unknown" of a very long word

Offsets = Callable[[str], Sequence[tuple[int, int]]]
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """One section's tokens: where each starts in the document, and which of them open a paragraph or a sentence."""

    starts: array[int]
    end: int
    paragraphs: list[int]
    sentences: list[int]

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
    """Sections, where one with next to no text is joined to the subsection that follows it."""
    waiting: Section | None = None
    for section in sections:
        current = section
        if waiting is not None:
            if current.heading[: len(waiting.heading)] == waiting.heading and current.page == waiting.page:
                current = Section(waiting.start, current.end, current.heading, current.page)
            else:
                yield waiting
            waiting = None
        body = text[current.start : current.end]
        # A token has at least one character, and few have more than twelve: most sections need no count.
        tiny = (
            bool(current.heading) and len(body) < TINY_TOKENS * 12 and len(offsets(body)) < min(TINY_TOKENS, max_tokens)
        )
        if tiny:
            waiting = current
        else:
            yield current
    if waiting is not None:
        yield waiting


def _cut(
    text: str, section: Section, offsets: Offsets, *, max_tokens: int, overlap: int
) -> Iterator[tuple[int, int, int]]:
    tokens = _tokens(text, section, offsets)
    total = len(tokens.starts)
    first = 0
    start = section.start
    while True:
        last = total if total - first <= max_tokens else _boundary(tokens, first, max_tokens, overlap)
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
        first = max(first + 1, _word_start(text, tokens, last, overlap))
        start = tokens.position(first)


def _boundary(tokens: _Tokens, first: int, max_tokens: int, overlap: int) -> int:
    """The token before which to cut: the last paragraph that fits, else the last sentence, else as many as fit."""
    most = first + max_tokens
    least = first + max_tokens * MIN_TOKENS // MAX_TOKENS
    rest = len(tokens.starts) - first
    if rest < 2 * max_tokens - overlap:  # two chunks will do: near the middle, or the second is a scrap
        middle = first + (rest + overlap) // 2
        least, most = min(least, middle), min(most, middle + max_tokens // 6)
    for marks in (tokens.paragraphs, tokens.sentences):
        index = bisect.bisect_right(marks, most) - 1
        if index >= 0 and marks[index] >= least:
            return marks[index]
    return most


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
    paragraphs = [section.start + match.end() for match in _PARAGRAPH.finditer(body)]
    sentences = [span.start for span in split(body, section.start)]
    return _Tokens(
        starts,
        section.end,
        sorted({bisect.bisect_left(starts, position) for position in paragraphs}),
        sorted({bisect.bisect_left(starts, position) for position in sentences}),
    )


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

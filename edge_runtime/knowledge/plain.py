"""Reads plain text and Markdown by finding their headings. The text itself is kept as it stands.

Headings of Markdown: CommonMark 0.31 sections 4.2 and 4.3, outside fenced code. Guesses no language and no table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge_runtime.errors import DocumentError
from edge_runtime.knowledge.documents import Format, ParsedDocument, Section

HEADING_CHARS = 200  # of a heading in a path: a longer one is no heading, and each of its subsections would carry it
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,3})\.?\s+[A-Z][^.!?;:]{1,70}$")


def read_text(name: str, text: str) -> ParsedDocument:
    return _document("text", name, text, list(_plain_headings(text)))


def read_markdown(name: str, text: str) -> ParsedDocument:
    return _document("markdown", name, text, list(_markdown_headings(text)))


def _document(kind: Format, name: str, text: str, headings: list[tuple[int, int, str]]) -> ParsedDocument:
    if not text.strip():
        raise DocumentError(f"{name} is empty: nothing was added")
    title = shortened(next((heading for _, level, heading in headings if level == 1), name))
    return ParsedDocument(format=kind, title=title, text=text, sections=sections(text, headings))


def shortened(heading: str) -> str:
    return heading if len(heading) <= HEADING_CHARS else heading[: HEADING_CHARS - 1].rstrip() + "…"


def sections(text: str, headings: list[tuple[int, int, str]]) -> list[Section]:
    """Sections that cover ``text``: from each heading (position, level from 1, words) to the next."""
    out: list[Section] = []
    path: list[tuple[int, str]] = []
    start = 0
    for position, level, heading in headings:
        if position > start and text[start:position].strip():
            out.append(Section(start, position, tuple(words for _, words in path)))
            start = position
        path = [*((above, words) for above, words in path if above < level), (level, shortened(heading))]
    out.append(Section(start, len(text), tuple(words for _, words in path)))
    return out


def _lines(text: str) -> Iterator[tuple[int, str]]:
    position = 0
    for line in text.split("\n"):
        yield position, line
        position += len(line) + 1


def _markdown_headings(text: str) -> Iterator[tuple[int, int, str]]:
    fence = ""
    before = (0, "")
    lines = _lines(text)
    first = next(lines, (0, ""))
    # Front matter is not Markdown: skip to its end.
    if first[1].rstrip() == "---" and re.search(r"\n---[ \t]*(?:\n|$)", text):
        for _, line in lines:
            if line.rstrip() == "---":
                break
    else:
        lines = _lines(text)
    for position, line in lines:
        mark = _FENCE.match(line)
        if fence:
            if mark and mark.group(1).startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if mark:
            fence = mark.group(1)
            continue
        atx = _ATX.match(line)
        if atx and (words := _closed(atx.group(2))):
            yield position, len(atx.group(1)), words
        elif (under := _UNDERLINE.match(line)) and _paragraph_line(before[1]):
            yield before[0], 1 if under.group(1)[0] == "=" else 2, before[1].strip()
        before = (position, line)


def _closed(words: str) -> str:
    """The words of a heading without the closing row of number signs, which a space must part from them."""
    words = words.rstrip()
    bare = words.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else words


def _paragraph_line(line: str) -> bool:
    return (
        bool(line.strip()) and not line.startswith(("    ", "\t")) and not re.match(r" {0,3}(?:[-*+>#|]|\d+[.)])", line)
    )


def _plain_headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Underlined lines, and short lines between blank ones that are numbered or in capitals."""
    lines = list(_lines(text))
    for row, (position, line) in enumerate(lines):
        words = line.strip()
        if not 2 < len(words) <= 80:
            continue
        following = lines[row + 1][1] if row + 1 < len(lines) else ""
        alone = (row == 0 or not lines[row - 1][1].strip()) and not following.strip()
        under = _UNDERLINE.match(following)
        if under and not _UNDERLINE.match(line) and abs(len(under.group().strip()) - len(words)) <= 4:
            yield position, 1 if under.group(1)[0] == "=" else 2, words
        elif alone and (numbered := _NUMBERED.match(words)):
            yield position, 1 + len(numbered.group(1).split(".")), words
        elif alone and words.isupper() and not words.endswith((".", "!", "?", ",", ";")):
            yield position, 1, words

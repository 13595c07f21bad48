"""What a terminal gets to see: data on stdout, talk on stderr, and no foreign text that could steer the terminal.

Text from models, documents, file names and logs passes through ``clean`` first: control characters, ANSI sequences and
bidirectional overrides become visible escapes. No markup language is involved anywhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click
import msgspec

from edge_runtime.knowledge_protocol import Citation, Locator

# C0 and C1 controls but newline and tab, line separators, bidirectional overrides and isolates, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_FIX = re.compile("(?:;|\n) *")
_MAX_WIDTH = 100
_CUT = "..."


def clean(text: str) -> str:
    """``text`` with what could steer a terminal made visible, as in ``\\x1b[31m``; newlines and tabs stay."""
    return _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def clean_line(text: str) -> str:
    """``clean`` on one line: runs of white space become one space."""
    return clean(" ".join(text.split()))


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def dumps(value: Any, *, indent: int | None = 2) -> str:
    """JSON of a struct or of plain data; dangerous characters stand as JSON escapes, so nothing is lost."""
    text = json.dumps(msgspec.to_builtins(value), indent=indent, ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def put(text: str = "", *, end: str = "\n") -> None:
    """Data, to stdout, at once. A character that the terminal's encoding lacks is shown as an escape."""
    _write(sys.stdout, text + end)


def put_json(value: Any) -> None:
    put(dumps(value))


def say(text: str = "", *, end: str = "\n") -> None:
    """Talk, to stderr."""
    _write(sys.stderr, text + end)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def complain(message: str) -> None:
    """``error: what`` and, indented below it, what to do about it: what follows the first semicolon or line."""
    what, *fixes = _FIX.sub("\n", clean(message), count=1).split("\n")
    say(paint(f"error: {what}", sys.stderr, fg="red"))
    for fix in fixes:
        say(f"  {fix.strip()}")


def has_color(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that shows colours, and its user wants them (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, stream: TextIO, **style: Any) -> str:
    return click.style(text, **style) if has_color(stream) else text


# ---- shapes --------------------------------------------------------------------------------------------------------


def cells(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def width(stream: TextIO | None = None) -> int:
    """Columns to write in: the terminal's, at most 100; no limit of ours where output is not a terminal."""
    if not (stream or sys.stdout).isatty():
        return 10_000
    return max(20, min(shutil.get_terminal_size().columns, _MAX_WIDTH))


def fit(text: str, columns: int) -> str:
    """``text`` cut to ``columns``, the cut shown."""
    if cells(text) <= columns:
        return text
    while text and cells(text) + len(_CUT) > columns:
        text = text[:-1]
    return text + _CUT


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, shrink: int = 0) -> list[str]:
    """Lines of left-aligned columns; on a narrow terminal column ``shrink`` gives way."""
    body = [[clean_line(str(cell)) for cell in row] for row in rows]
    lines = [[name.upper() for name in head], *body]
    widths = [max(cells(line[i]) for line in lines) for i in range(len(head))]
    over = sum(widths) + 2 * (len(widths) - 1) - width()
    widths[shrink] = max(min(widths[shrink], 12), widths[shrink] - max(over, 0))
    for line in lines:
        line[shrink] = fit(line[shrink], widths[shrink])
    padded = [[cell + " " * (w - cells(cell)) for cell, w in zip(line, widths, strict=True)] for line in lines]
    return ["  ".join(line).rstrip() for line in padded]


class Wrapped:
    """Words written to stdout as they come, broken at ``columns``; ``indent`` spaces before each line."""

    def __init__(self, columns: int, indent: int = 0) -> None:
        self._columns = columns
        self._indent = " " * indent
        self._at = 0  # columns used on this line; 0: nothing yet

    def write(self, text: str) -> None:
        for number, line in enumerate(clean(text).split("\n")):
            if number and self._at:
                self.end()
            for word in line.split():
                self._word(word)

    def _word(self, word: str) -> None:
        size = cells(word)
        if self._at and self._at + 1 + size > self._columns:
            self.end()
        lead = " " if self._at else self._indent
        put(lead + word, end="")
        self._at += len(lead) + size

    def end(self) -> None:
        """Finish the line, if one was begun."""
        if self._at:
            put()
        self._at = 0


def place(locator: Locator) -> str:
    """Where a person finds a passage: ``Alarms, page 3``; characters where a document has neither."""
    parts = [clean_line(locator.heading)] if locator.heading else []
    if locator.page is not None:
        parts.append(f"page {locator.page}")
    return ", ".join(parts) or f"characters {locator.start} to {locator.end}"


def put_citation(number: int, citation: Citation) -> None:
    """``[1] manual.md, Alarms`` and the quote below it."""
    mark = paint(f"[{number}]", sys.stdout, fg="cyan")
    put(f"{mark} {paint(clean_line(citation.document), sys.stdout, bold=True)}, {place(citation.locator)}")
    quote = Wrapped(width(), indent=4)
    quote.write(f'"{" ".join(citation.quote.split())}"')
    quote.end()


def size(count: float) -> str:
    """Bytes as people read them: ``469 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"

"""Documents on their way into the index, as parsed and as cut. Imports nothing heavy: the parsing child needs it.

All offsets are characters (code points) of ``ParsedDocument.text``, the text that citations quote verbatim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

Format = Literal["markdown", "text", "html", "pdf", "docx", "csv", "code"]
# How a section may be cut: prose at paragraphs and sentences, rows at line ends alone, code at blank lines and lines.
Kind = Literal["prose", "rows", "code"]


class Section(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of text under one heading, or one page."""

    start: int
    end: int
    heading: tuple[str, ...] = ()  # outermost first
    page: int | None = None  # from 1
    kind: Kind = "prose"


class ParsedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a parser made of a file. The sections follow each other and cover ``text`` without a gap."""

    format: Format
    title: str
    text: str
    sections: list[Section]
    pages: int | None = None
    warnings: list[str] = []


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may cost (the ``[knowledge]`` table of the configuration)."""

    memory_bytes: int = 1 * 2**30  # address space of the parsing child
    seconds: int = 60  # CPU and wall seconds of the parsing child
    document_bytes: int = 64 * 2**20
    text_chars: int = 20_000_000
    chunk_tokens: int = 600
    chunk_overlap: int = 50
    unsealed_ok: bool = False  # the daemon was told to run where the kernel cannot seal


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` (exclusive)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of one section, at most ``Limits.chunk_tokens`` long: what search finds."""

    start: int
    end: int
    heading: tuple[str, ...]
    page: int | None
    tokens: int

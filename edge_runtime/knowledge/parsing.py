"""Reads a file by what it is: Markdown, text, HTML, PDF, DOCX, CSV or source code; and the limits under which it does.

A parser is where a hostile file does its harm: :mod:`.cut_child` calls this in a fork that is limited and sealed.
"""

from __future__ import annotations

import resource
from pathlib import PurePath

import msgspec

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


class Unreadable(msgspec.Struct, frozen=True, tag=True):
    """Why there is no document; ``code`` is that of the error."""

    code: str
    message: str


def limit(memory_bytes: int, seconds: int) -> None:
    """Address space, CPU time, open files; no file grows and no core is dumped (setrlimit(2))."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def read(name: str, content: bytes, *, text_chars: int, seconds: float = 60) -> ParsedDocument:
    """What ``content`` says, by what it is and, failing that, by its name. Raises DocumentError or TooLargeError.

    ``seconds`` is the wall time after which a reader that goes page by page says how far it came.
    """
    if not content.strip():
        raise DocumentError(f"{name} is empty: nothing was added")
    # The parsers are imported here, behind the limits.
    if content.startswith(_ZIP):
        from edge_runtime.knowledge.docx import read_docx  # noqa: PLC0415

        return read_docx(name, content, text_chars=text_chars)
    if b"%PDF-" in content[:1024]:
        from edge_runtime.knowledge.pdf import read_pdf  # noqa: PLC0415

        return read_pdf(name, content, text_chars=text_chars, seconds=seconds)
    from edge_runtime.knowledge.encoding import decode  # noqa: PLC0415

    text = decode(name, content)
    if len(text) > text_chars:
        raise TooLargeError(f"{name} holds more than {text_chars} characters: split it, or raise knowledge.text_chars")
    return _read_text(name, text, text_chars)


def _read_text(name: str, text: str, text_chars: int) -> ParsedDocument:
    suffix = PurePath(name).suffix.lower()
    opening = text[:512].lstrip().lower()
    if suffix in {".html", ".htm", ".xhtml"} or opening.startswith(("<!doctype html", "<html")):
        from edge_runtime.knowledge.markup import read_html  # noqa: PLC0415

        return read_html(name, text)
    from edge_runtime.knowledge import csv_tables, plain, source_code  # noqa: PLC0415

    if suffix in {".md", ".markdown", ".mdown"}:
        return plain.read_markdown(name, text)
    if suffix in csv_tables.SUFFIXES:
        return csv_tables.read_csv(name, text, text_chars=text_chars)
    found = source_code.language(name, text)
    return plain.read_text(name, text) if found is None else source_code.read_code(name, text, found)

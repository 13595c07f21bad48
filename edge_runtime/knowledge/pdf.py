"""Reads the text of a PDF page by page. It does not recognise characters in images: a scan is named as one.

A page is a section; words that a line end divided are joined again.
"""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pypdf
from pypdf.errors import LimitReachedError, PdfReadError

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument, Section

_TAIL_BYTES = 4096  # a whole PDF ends with %%EOF; some writers add a few bytes after it
_HYPHEN = re.compile(r"([^\W\d_])(?:-|\u2010|\u00ad)[ \t]*\n[ \t]*([a-zà-ÿ])")
_TRAILING = re.compile(r"[ \t]+\n")


def read_pdf(name: str, content: bytes, *, text_chars: int) -> ParsedDocument:
    """Raises DocumentError (encrypted, cut short, damaged, a scan) or TooLargeError."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    if b"%%EOF" not in content[-_TAIL_BYTES:]:
        raise DocumentError(f"{name} is cut short (the end of the PDF is missing): copy it again from its source")
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError(f"{name} is encrypted: remove the password and add it again")
        title = str((reader.metadata.title if reader.metadata else "") or "").strip()
        texts, scans = _pages(name, reader, text_chars)
    except LimitReachedError as error:
        raise DocumentError(
            f"{name} unpacks to far more than its size allows (a zip bomb?): it was not read"
        ) from error
    except (
        PdfReadError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        OSError,
    ) as error:
        # pypdf lets all of these out of damaged files.
        raise DocumentError(f"{name} is damaged: print it to a new PDF and add that ({error})") from error
    if not texts:
        raise DocumentError(f"{name} is damaged: it has no pages")
    if not any(texts):
        reason = "is a scan and holds no text: run OCR first" if scans else "holds no text: nothing was added"
        raise DocumentError(f"{name} {reason}")
    text, sections = _joined(texts)
    warnings = [_warning(name, scans)] if scans else []
    return ParsedDocument(
        format="pdf", title=title or name, text=text, sections=sections, pages=len(texts), warnings=warnings
    )


def _pages(name: str, reader: pypdf.PdfReader, text_chars: int) -> tuple[list[str], list[int]]:
    """Each page's text, and the numbers of those that hold images and no text."""
    texts: list[str] = []
    scans: list[int] = []
    total = 0
    for number, page in enumerate(reader.pages, 1):
        text = clean(page.extract_text())
        if not text and _has_image(page):
            scans.append(number)
        total += len(text) + 2
        if total > text_chars:
            raise TooLargeError(
                f"{name} holds more than {text_chars} characters: split it, or raise knowledge.text_chars"
            )
        texts.append(text)
    return texts, scans


def clean(text: str) -> str:
    """A page's text with divided words joined and stray characters gone."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").encode("utf-8", "ignore").decode("utf-8")
    return _HYPHEN.sub(r"\1\2", _TRAILING.sub("\n", text)).strip()


def _has_image(holder: Any, depth: int = 0) -> bool:
    """Whether a page, or a form that it shows, shows an image."""
    resources = holder.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    if objects is None or depth > 3:
        return False
    shown = [one.get_object() for one in objects.get_object().values()]
    return any(one.get("/Subtype") == "/Image" or _has_image(one, depth + 1) for one in shown)


def _joined(texts: list[str]) -> tuple[str, list[Section]]:
    sections: list[Section] = []
    position = 0
    for number, text in enumerate(texts, 1):
        end = position + len(text) + (2 if number < len(texts) else 0)
        sections.append(Section(position, end, (), number))
        position = end
    return "\n\n".join(texts), sections


def _warning(name: str, scans: list[int]) -> str:
    shown = ", ".join(map(str, scans[:20])) + (" and more" if len(scans) > 20 else "")
    pages = "pages" if len(scans) > 1 else "page"
    return f"{name}: {pages} {shown} can be seen but not read (scans): run OCR to have them found too"

"""Reads the text of a PDF page by page with PDFium. It does not recognise characters in images: a scan is named as one.

A page is a section; words that a line end divided are joined again. No form is filled and no script is run: this build
of PDFium has no JavaScript, and form fields are not opened.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pypdfium2
from pypdfium2 import raw

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument, Section
from edge_runtime.knowledge.plain import shortened

PAGES = 100_000  # at most in one file; a damaged or hostile one may say it has a thousand million
_BROKEN_PAGES = 1000
_TIME_SHARE = 0.7  # of the seconds there are; the rest is for cutting what was read
_TAIL_BYTES = 4096  # a whole PDF ends with %%EOF; some writers add a few bytes after it
# PDFium gives the hyphen at which a line ends as U+FFFE or U+0002 and leaves the line end out.
_DIVIDED = re.compile(r"[\ufffe\x02](?:\r?\n)?")
_HYPHEN = re.compile(r"([^\W\d_])(?:-|\u2010|\u00ad)[ \t]*\n[ \t]*([a-zà-ÿ])")
_TRAILING = re.compile(r"[ \t]+\n")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SPACE = re.compile(r"\s+")


def read_pdf(name: str, content: bytes, *, text_chars: int, seconds: float = 60) -> ParsedDocument:
    """The text of all pages, as far as they can be read within ``seconds`` of wall time.

    Raises:
        DocumentError: encrypted, cut short, damaged, a scan, or too many pages for the time there is.
        TooLargeError: over ``text_chars``.
    """
    deadline = time.monotonic() + seconds * _TIME_SHARE
    if b"%%EOF" not in content[-_TAIL_BYTES:]:
        raise DocumentError(f"{name} is cut short (the end of the PDF is missing): copy it again from its source")
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code in {raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY}:
            raise DocumentError(f"{name} is encrypted: remove the password and add it again") from error
        raise DocumentError(f"{name} is damaged: print it to a new PDF and add that ({error})") from error
    count = len(document)
    if count > PAGES:
        raise DocumentError(f"{name} says that it has {count} pages and the limit is {PAGES}: split it")
    title = _SPACE.sub(" ", document.get_metadata_value("Title")).strip()
    texts: list[str] = []
    scans: list[int] = []
    broken: list[int] = []
    total = 0
    for number, text in enumerate(_pages(document, scans, broken), 1):
        total += len(text) + 2
        if total > text_chars:
            raise TooLargeError(
                f"{name} holds more than {text_chars} characters: split it, or raise knowledge.text_chars"
            )
        texts.append(text)
        if time.monotonic() > deadline and number < count:
            raise DocumentError(
                f"{name} has {count} pages, of which {number} could be read in {seconds:.0f} s: split it, or raise "
                "knowledge.parse_seconds in edge.toml"
            )
    if count == 0 or len(broken) == len(texts):
        raise DocumentError(f"{name} is damaged: none of its pages can be read; print it to a new PDF and add that")
    if not any(texts):
        reason = "is a scan and holds no text: run OCR first" if scans else "holds no text: nothing was added"
        raise DocumentError(f"{name} {reason}")
    whole, sections = _joined(texts)
    warnings = []
    if scans:
        warnings.append(_warning(name, scans, "can be seen but not read (scans): run OCR to have them found too"))
    if broken:
        warnings.append(_warning(name, broken, "cannot be read (damaged): print the file to a new PDF"))
    return ParsedDocument(
        format="pdf", title=shortened(title) or name, text=whole, sections=sections, pages=count, warnings=warnings
    )


def _pages(document: pypdfium2.PdfDocument, scans: list[int], broken: list[int]) -> Iterator[str]:
    """Each page's text; notes the numbers of those that hold images and no text, and of those that do not open."""
    for number in range(1, len(document) + 1):
        if len(broken) >= _BROKEN_PAGES:
            return
        try:
            page = document[number - 1]
        except pypdfium2.PdfiumError:
            broken.append(number)
            yield ""
            continue
        try:
            lines = page.get_textpage()
            try:
                text = clean(lines.get_text_bounded())
            finally:
                lines.close()
            if not text and next(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=4), None) is not None:
                scans.append(number)
        except pypdfium2.PdfiumError:
            broken.append(number)
            text = ""
        finally:
            page.close()
        yield text


def clean(text: str) -> str:
    """A page's text with divided words joined and stray characters gone."""
    text = _DIVIDED.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub("", text).encode("utf-8", "ignore").decode("utf-8")
    return _HYPHEN.sub(r"\1\2", _TRAILING.sub("\n", text)).strip()


def _joined(texts: list[str]) -> tuple[str, list[Section]]:
    sections: list[Section] = []
    position = 0
    for number, text in enumerate(texts, 1):
        end = position + len(text) + (2 if number < len(texts) else 0)
        sections.append(Section(position, end, (), number))
        position = end
    return "\n\n".join(texts), sections


def _warning(name: str, numbers: list[int], said: str) -> str:
    shown = ", ".join(map(str, numbers[:20])) + (" and more" if len(numbers) > 20 else "")
    return f"{name}: {'pages' if len(numbers) > 1 else 'page'} {shown} {said}"

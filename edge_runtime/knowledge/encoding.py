"""Finds a text's encoding and makes it plain, and says what a file is that holds no text.

Guesses no 8-bit alphabet but Windows-1252: a text in KOI8 or Shift JIS must be saved as UTF-8 first.
"""

from __future__ import annotations

import codecs
import re

from edge_runtime.errors import DocumentError

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Files that are no text though a short one may hold no byte that betrays it.
_CONTAINERS = (
    (b"PK\x03\x04", "is a ZIP archive: unpack it and add what is in it"),
    (b"\xd0\xcf\x11\xe0", "is an old Office file (.doc, .xls, .ppt) or one with a password: save it as DOCX or PDF"),
    (b"{\\rtf", "is an RTF file: save it as DOCX or PDF and add that"),
    (b"\x1f\x8b", ""),
    (b"BZh", ""),
    (b"\xfd7zXZ", ""),
    (b"\x28\xb5\x2f\xfd", ""),
    (b"\x7fELF", ""),
    (b"\x89PNG", ""),
    (b"\xff\xd8\xff", ""),
    (b"GIF8", ""),
    (b"SQLite format 3\0", ""),
)
NOT_TEXT = "is not a text, Markdown, HTML, PDF, DOCX, CSV or source file: export it to one of these and add that"
_SAMPLE = 2**16
_STRAY = 10_000  # bytes outside UTF-8 that a UTF-8 text may hold


def decode(name: str, content: bytes) -> str:
    """UTF-8, UTF-16 or UTF-32 by its mark, else UTF-8, UTF-16 by its zeros, else Windows-1252 or Latin-1.

    In a text that is mostly UTF-8, each byte that is not is read as Windows-1252: log files mix the two. Line ends
    become ``\\n``; terminal colours and other control characters go.

    Raises:
        DocumentError: this is no text.
    """
    for mark, said in _CONTAINERS:
        if content.startswith(mark):
            raise DocumentError(f"{name} {said or NOT_TEXT}")
    text = _decoded(content)
    if text is None:
        raise DocumentError(f"{name} {NOT_TEXT}")
    text = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n").replace("\v", "\n"))
    strange = len(_CONTROLS.findall(text)) + text.count("\ufffd")
    if strange > 2 + len(text) // 200:
        raise DocumentError(f"{name} {NOT_TEXT}")
    return _CONTROLS.sub(" ", text)


def _decoded(content: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace").removeprefix("\ufeff")
    content = content.rstrip(b"\0") if content[-4:] == bytes(4) else content  # a log that a power cut left behind
    zeros = content.count(0)
    if zeros > 2 + len(content) // 200:
        return _wide(content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        if zeros > 2 and (text := _wide(content)) is not None:
            return text
    mixed = _mixed(content)
    if mixed is not None:
        return mixed
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _wide(content: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of its Latin letters, spaces and line ends is zero."""
    sample = content[:_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if min(even, odd) > max(even, odd) // 20 or max(even, odd) < len(sample) // 400:
        return None
    text = content.decode("utf-16-be" if even > odd else "utf-16-le", "replace")
    return None if text.count("\ufffd") > 1 + len(text) // 1000 else text


def _mixed(content: bytes) -> str | None:
    """``content`` as UTF-8 with stray bytes of Windows-1252; None: there are more stray bytes than whole characters."""
    stray = 0

    def mended(error: UnicodeError) -> tuple[str, int]:
        nonlocal stray
        if not isinstance(error, UnicodeDecodeError) or stray > _STRAY:
            raise error
        stray += error.end - error.start
        part = error.object[error.start : error.end]
        try:
            return part.decode("cp1252"), error.end
        except UnicodeDecodeError:
            return part.decode("latin-1"), error.end

    codecs.register_error("edge.mended", mended)
    try:
        text = content.decode("utf-8", "edge.mended")
    except UnicodeDecodeError:
        return None
    whole = sum(1 for character in text if ord(character) > 127) - stray
    return text if whole >= stray else None

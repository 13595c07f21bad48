"""What a text is known by when its document is added again, and how much there is to read in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

DIGEST_BYTES = 16


def heading_path(heading: Sequence[str]) -> str:
    """A heading path as stored: outermost first, joined by newlines, white space made one space."""
    return "\n".join(" ".join(part.split()) for part in heading)


def chunk_digest(heading: Sequence[str], text: str) -> bytes:
    """What two chunks share that are embedded alike: BLAKE2b-16 (RFC 7693) of heading path and text."""
    return stored_digest(heading_path(heading), text)


def stored_digest(path: str, text: str) -> bytes:
    """:func:`chunk_digest`, of a heading path as stored."""
    return text_digest(f"{path}\0{text}")


def text_digest(text: str) -> bytes:
    """BLAKE2b-16 of a text alone."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def count_visible(text: str) -> int:
    """The characters that are not white space."""
    return len("".join(text.split()))

"""Free text in which a call of a tool may begin: what may be written until it does. Pure.

A call begins with its mark, anywhere; or, for models that forget the mark, with a JSON object at the very beginning of
the text that names a function and comes to its arguments (``BARE``). Either must end where a token ends, so that the
grammar of what follows can begin there.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from edge_runtime.engine.structure import BARE, OPENING

_MARK = OPENING.encode()
_BARE = re.compile(BARE.encode())
_MOST = 256  # bytes of the beginning in which a bare call is looked for


class Watch:
    """``names`` of the functions that may be called."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = {name.encode() for name in names}
        self._beginning: bytes | None = b""  # None: it is no bare call
        self._tail = b""

    def feed(self, piece: bytes) -> str | None:
        """The text goes on; what begins with its end: a function's name (bare), "" (the mark), or None."""
        self._tail = (self._tail + piece)[-2 * len(_MARK) :]
        if self._tail.endswith(_MARK):
            return ""
        if self._beginning is None:
            return None
        self._beginning += piece
        found = _BARE.match(self._beginning)
        if found is not None and found[1] in self._names:
            return found[1].decode()
        if len(self._beginning) > _MOST or found is not None:
            self._beginning = None
        return None

    def straddles(self, piece: bytes) -> bool:
        """Whether a call would begin inside this piece, with more text behind it."""
        tail = self._tail + piece
        at = tail.find(_MARK, max(0, len(self._tail) - len(_MARK) + 1))
        if at >= 0 and at + len(_MARK) != len(tail):
            return True
        if self._beginning is None:
            return False
        found = _BARE.match(self._beginning + piece)
        return found is not None and found[1] in self._names and found.end() != len(self._beginning) + len(piece)

"""Bytes of tokens to text that may be shown: whole UTF-8 characters, and nothing of a stop string. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Utf8Text:
    """Joins byte pieces into text; a character that is only half there waits for its rest.

    Bytes that cannot be UTF-8 become U+FFFD, exactly as ``bytes.decode(errors="replace")`` of the whole would give;
    half a character does so only at the end.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        return self._decoder.decode(piece)

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Passes text on until one of ``stops`` is complete; text that may yet become one is held back.

    The stop string that ends first wins, and the longest of those that end together: the outcome does not depend on how
    the text was cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that became final. Nothing more comes once ``stopped``."""
        if self.stopped:
            return ""
        self._held += text
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            final, self._held = self._held[: min(found)[1]], ""
            return final
        keep = self._pending()
        cut = len(self._held) - keep
        final, self._held = self._held[:cut], self._held[cut:]
        return final

    def finish(self) -> str:
        """What was held back and became no stop string."""
        final, self._held = self._held, ""
        return final

    def _pending(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest


class Detokenizer:
    """Token bytes in, final text out."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._text = Utf8Text()
        self._stops = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """A stop string is complete: the generation ends here."""
        return self._stops.stopped

    def feed(self, piece: bytes) -> str:
        return self._stops.feed(self._text.feed(piece))

    def finish(self) -> str:
        """The rest, at the end of a generation."""
        return self._stops.feed(self._text.finish()) + self._stops.finish()

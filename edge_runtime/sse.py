"""Server-sent events out of a byte stream, after the WHATWG HTML standard, section 9.2.6; sans-io.

It does not reconnect, and ignores ``id`` and ``retry``: a stream of ours is one answer, never resumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.errors import TooLargeError

MAX_EVENT = 16 * 2**20  # bytes of one event
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event; ``name`` is ``message`` where the stream names none."""

    name: str
    data: str


class EventLines:
    """Cuts bytes into events: ``feed`` what arrived, iterate what is whole. An event cut off by the end is dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Raises TooLargeError where one line or event passes ``MAX_EVENT``."""
        self._buffer += data
        for line in self._lines():
            event = self._take(line)
            if event is not None:
                yield event
        if len(self._buffer) + sum(map(len, self._data)) > MAX_EVENT:
            raise TooLargeError(f"the daemon sent an event of more than {MAX_EVENT} bytes")

    def _lines(self) -> Iterator[str]:
        if not self._started:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return
            self._started = True
            if self._buffer.startswith(_BOM):
                del self._buffer[: len(_BOM)]
        position = 0
        while (found := _LINE_END.search(self._buffer, position)) is not None:
            # A lone CR at the end may be half of a CRLF.
            if found.group() == b"\r" and found.end() == len(self._buffer):
                break
            line = bytes(self._buffer[position : found.start()])
            position = found.end()
            yield line.decode("utf-8", "replace")
        del self._buffer[:position]

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
        return None

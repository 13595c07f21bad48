"""What comes to the engine child over its socket, read by a thread of its own, so that a cancel is seen at once."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from edge_runtime.engine.messages import Down, Failed, FrameError, Frames, decode_down
from edge_runtime.errors import RequestError

Arrival = tuple[float, Down | Failed]  # when, by time.perf_counter

_READ = 1 << 16  # bytes
_GATHER = 0.002  # seconds without another message, after which an idle engine begins
_GATHER_MOST = 0.012  # and at most


class Inbox:
    """What came over the socket, read by a thread of its own; ``peek`` sees each message at once, in that thread."""

    def __init__(self, end: socket.socket, peek: Callable[[Down], None]) -> None:
        self._socket = end
        self._peek = peek
        self._frames: deque[Arrival] = deque()
        self._latest = 0.0  # when the last message came that was taken
        self._ready = threading.Condition()
        self._ended = self._woken = False
        self.broken: FrameError | None = None
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    def take(self, *, wait: bool) -> list[Arrival] | None:
        """All that has come; with ``wait``, sleeps until something has.

        None: the other side is gone. Nothing: :meth:`wake` was called.
        """
        with self._ready:
            if wait:
                self._ready.wait_for(lambda: self._frames or self._ended or self._woken)
            self._woken = False
            if self._ended and not self._frames:
                return None
            return self._found()

    def gather(self, first: float) -> list[Arrival]:
        """What comes with the latest message, the first of which came at ``first``; nothing: begin without.

        Requests that are sent together are not all here at once, and are read faster together. The time that it took to
        prepare the first of them counts.
        """
        with self._ready:
            until = min(self._latest + _GATHER, first + _GATHER_MOST)
            self._ready.wait_for(lambda: self._frames or self._ended, max(until - time.perf_counter(), 0.0))
            return self._found()

    def _found(self) -> list[Arrival]:
        found = list(self._frames)
        self._frames.clear()
        if found:
            self._latest = found[-1][0]
        return found

    def wake(self) -> None:
        """Let :meth:`take` return, from whatever thread: there is something to do that came over no socket."""
        with self._ready:
            self._woken = True
            self._ready.notify()

    def _listen(self) -> None:
        frames = Frames()
        try:
            while data := self._socket.recv(_READ):
                now = time.perf_counter()
                messages = [_decode(body) for body in frames.feed(data)]
                with self._ready:
                    self._frames.extend((now, message) for message in messages)
                    self._ready.notify()
                for message in messages:
                    if not isinstance(message, Failed):
                        self._peek(message)
        except OSError:
            pass
        except FrameError as error:
            self.broken = error
        with self._ready:
            self._ended = True
            self._ready.notify()


def _decode(body: bytes) -> Down | Failed:
    try:
        return decode_down(body)
    except FrameError as error:
        return Failed(id=_id_of(body), code=RequestError.code, message=f"{error}; send one of the protocol")


def _id_of(frame: bytes) -> str:
    """The id inside a frame that is no message of ours, as far as there is one."""
    try:
        body = msgspec.msgpack.decode(frame)
    except msgspec.MsgspecError:
        return ""
    found = body.get("id") if isinstance(body, dict) else None
    return found if isinstance(found, str) else ""

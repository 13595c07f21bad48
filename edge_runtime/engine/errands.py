"""Work that must not stop the streams: done in threads, its results taken up by the loop between two steps.

What works in C releases the interpreter, and the steps go on beside it; a single long call that does not, delays them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edge_runtime.errors import EdgeError

Work = Callable[[], object]
Then = Callable[[EdgeError | None], None]


class Errands:
    """Pieces of work, one after the other; the next begins when the loop has taken up the one before.

    ``wake`` is called in the thread when a piece is done. All else is for the loop's thread alone.
    """

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._name = name
        self._wake = wake
        self._waiting: deque[tuple[Work, Then]] = deque()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None or bool(self._waiting)

    def add(self, work: Work, then: Then) -> None:
        """Do ``work`` in a thread, and let :meth:`collect` call ``then`` with its error, or None."""
        self._waiting.append((work, then))
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        self._ended.clear()
        self._error = None
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._do, args=(self._waiting[0][0],), name=self._name, daemon=True)
        self._thread.start()

    def _do(self, work: Work) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the loop, unless it is an answer
            self._error = error
        self._ended.set()
        self._wake()

    def collect(self) -> None:
        """Take up what is done. Raises whatever the work raised that is no EdgeError."""
        if self._thread is None or not self._ended.is_set():
            return
        self._thread, error = None, self._error
        _, then = self._waiting.popleft()
        if error is not None and not isinstance(error, EdgeError):
            raise error
        then(error)
        if self._waiting and self._thread is None:
            self._start()

    def close(self) -> None:
        """Forget what waits, and wait for the piece that is being done."""
        self._waiting.clear()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

"""The places in front of the index: how many questions and searches are here, and how many look at once.

A question keeps its place until its answer is whole, and its turn only while it looks: what a writer then reads and
writes is the engine's to admit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence

from edge_runtime.daemon.text_queue import TextQueue

AT_ONCE = 4  # look at once: beyond that they would only take the cores from each other


class Questions:
    """``most`` questions and searches run or wait, ``per_user`` of them one user's; ``async with turns`` to look."""

    def __init__(self, most: int, per_user: int, *, at_once: int = AT_ONCE) -> None:
        self.queue = TextQueue(most, per_user, "questions")
        self.turns = asyncio.Semaphore(at_once)

    @contextlib.contextmanager
    def admit(self, user: str, texts: Sequence[str], *, privileged: bool) -> Iterator[None]:
        """A place while the block lasts.

        Raises:
            BusyError: too many are there, or too many of this user; with when to come back.
        """
        order = self.queue.enter(user, texts, privileged=privileged, now=time.monotonic())
        served = False
        try:
            yield
            served = True
        finally:
            self.queue.leave(order, now=time.monotonic(), served=served)

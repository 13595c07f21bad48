"""Who is let in where texts are read: so many requests, so much text, and so many requests of one user. Pure.

One stands before the embedder for ``/v1/embeddings``, one before the index for questions and searches. What the box
embeds for itself (documents being added) is never refused, and a question goes before all of it in the embedder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_runtime.daemon.admission import LONGEST_SECONDS, UNKNOWN_SECONDS, Reason
from edge_runtime.errors import BusyError

MOST_CHARACTERS = 16 * 2**20  # of all that wait together; one request alone may always come
_OF_A_TEXT = 100  # characters: what a text costs beside its own
_LEARN = 0.1  # the weight of the latest request in a running mean


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A request that was let in: whose, how much it costs (characters), and since when it is here (seconds)."""

    user: str
    cost: int
    entered: float


@dataclass(slots=True)
class TextQueue:
    """``most`` requests may run or wait, ``per_user`` of them one user's; ``what`` they are called in a refusal.

    The caller has the clock.
    """

    most: int
    per_user: int
    what: str
    orders: list[Order] = field(default_factory=list)
    _seconds: float = 0.0  # of a character, a running mean; 0: nothing is known yet
    _left: float = 0.0  # when the last one was done

    def enter(self, user: str, texts: Sequence[str], *, privileged: bool, now: float) -> Order:
        """A place, to be given back with :meth:`leave`. ``privileged``: root and the owner have no quota.

        Raises:
            BusyError: the queue is full, or the user has enough in it; with when to come back.
        """
        cost = sum(len(text) + _OF_A_TEXT for text in texts)
        if len(self.orders) >= self.most:
            raise self._busy("queue_full", f"{len(self.orders)} {self.what} run or wait already")
        if self.orders and sum(order.cost for order in self.orders) + cost > MOST_CHARACTERS:
            raise self._busy("queue_full", f"the {self.what} before this one hold as much text as they may")
        if not privileged and sum(order.user == user for order in self.orders) >= self.per_user:
            raise self._busy("quota", f"{user} has {self.per_user} {self.what} here already, as many as one may")
        order = Order(user, cost, now)
        self.orders.append(order)
        return order

    def leave(self, order: Order, *, now: float, served: bool) -> None:
        """It is over; one that was ``served`` tells how fast they are read."""
        self.orders.remove(order)
        if served:
            seconds = max(now - max(order.entered, self._left), 0.0) / max(order.cost, 1)
            self._seconds += (_LEARN if self._seconds else 1.0) * (seconds - self._seconds)
            self._left = now

    def _busy(self, reason: Reason, what: str) -> BusyError:
        seconds = UNKNOWN_SECONDS
        if self._seconds:
            expected = sum(order.cost for order in self.orders) * self._seconds
            seconds = min(max(math.ceil(expected), 1), LONGEST_SECONDS)
        return BusyError(f"{what}; try again in {seconds} s", reason=reason, retry_after=seconds)

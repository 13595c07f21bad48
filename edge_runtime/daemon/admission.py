"""Who is let in front of the engine: places by class and by user, and how long what was let in will take. Pure.

The engine orders what it is given and parks what must wait; nothing that was admitted is put out again. The engine's
own figures are passed in. Prompts are counted in tokens before anybody has cut them: from their bytes,
by a ratio that every finished request corrects.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from edge_runtime.engine.messages import CLASSES, Class, Stats
from edge_runtime.errors import BusyError, DeadlineError

BYTES_PER_TOKEN = 3.2  # of English text, until finished requests tell better
SAFETY = 1.5  # a deadline is refused only where the estimate passes it by so much
UNKNOWN_SECONDS = 2  # what a refused client is told while nothing is known of the engine's speed
LONGEST_SECONDS = 120
_TELLING_BYTES = 400
_LEARN_FRESH = 0.5  # what a conversation has in the cache changes with its second turn
_USERS = 256  # that are remembered
_LEARN = 0.1  # the weight of the latest request in a running mean
_RANK = {name: rank for rank, name in enumerate(CLASSES)}

Reason = Literal["queue_full", "quota", "deadline", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``slots`` requests write at once, ``queue`` more wait, and ``per_user`` of both are one user's."""

    slots: int
    queue: int
    per_user: int

    def places(self, priority: Class) -> int:
        """Places that requests of this class may fill: the last eighth of the queue is for the realtime ones, the
        quarter before it for those and the interactive ones."""
        kept = {"realtime": 0, "interactive": self.queue // 8, "batch": self.queue // 8 + self.queue // 4}
        return self.slots + self.queue - kept[priority]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid:
    """A request for ``places`` texts (OpenAI's ``n``) of at most ``tokens`` each after one prompt."""

    user: str
    priority: Class = "interactive"
    privileged: bool = False  # root and the owner have no quota
    places: int = 1
    prompt_bytes: int = 0
    tokens: int = 1  # at most
    whole: bool = False  # no end token ends it: all of ``tokens`` are written
    deadline_ms: int | None = None  # from the request's arrival
    spent_ms: float = 0.0  # since then, as on loading its model


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """A bid that was admitted, and how far it is. ``written`` counts the tokens of all its texts."""

    bid: Bid
    prompt_tokens: int  # that will have to be read, as far as anybody can tell
    expected: int  # tokens of each text
    begun: bool = False
    written: int = 0

    def left(self) -> int:
        """Tokens of one text that are still to come, as far as anybody can tell."""
        return max(self.expected - self.written // self.bid.places, 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Milliseconds from now to the first token, and to the last one."""

    first_ms: float
    last_ms: float


@dataclass(slots=True)
class Admission:
    """The places in front of one engine."""

    limits: Limits
    places: list[Place] = field(default_factory=list)
    bytes_per_token: float = BYTES_PER_TOKEN
    length: float = 0.0  # tokens of a text that ended by itself, a running mean; 0: none has yet
    closed: str = ""  # why nobody is let in, with what to do about it
    _present: int = 0
    _fresh: dict[str, float] = field(default_factory=dict)  # by user: the share of prompts that no cache held

    def enter(self, bid: Bid, *, stats: Stats | None) -> Place:
        """A place for ``bid``, to be given back with :meth:`leave`.

        Raises:
            BusyError: no place is left for its class, its user has enough, or memory is short; with when to come back.
            DeadlineError: it would not be done in time.
        """
        limits = self.limits
        if self.closed:
            raise BusyError(self.closed, reason="memory", retry_after=UNKNOWN_SECONDS)
        if self._present + bid.places > limits.places(bid.priority):
            raise self._busy(
                self.places,
                stats,
                "queue_full",
                f"{self._present} requests run or wait already, and no place is left for {bid.priority} ones",
            )
        if not bid.privileged:
            own = [place for place in self.places if place.bid.user == bid.user]
            if sum(place.bid.places for place in own) + bid.places > limits.per_user:
                raise self._busy(
                    own, stats, "quota", f"{bid.user} has {limits.per_user} requests here already, as many as one may"
                )
        place = self._place(bid)
        if bid.deadline_ms is not None:
            self._check_deadline(place, bid.deadline_ms, stats)
        self.places.append(place)
        self._present += bid.places
        return place

    def leave(self, place: Place) -> None:
        self.places.remove(place)
        self._present -= place.bid.places

    def begin(self, place: Place, written: int) -> None:
        """The first token of ``place`` is there, or one more of them."""
        place.begun = True
        place.written = max(place.written, written)

    def learn(
        self, place: Place, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int, stopped: bool
    ) -> None:
        """What one text of ``place`` came to: corrects the estimates of those to come."""
        if prompt_tokens:
            self._note_fresh(place.bid.user, 1 - cached_tokens / prompt_tokens)
        # A short prompt is mostly its template, and would tell nothing of a long one.
        if prompt_tokens and place.bid.prompt_bytes >= _TELLING_BYTES:
            ratio = place.bid.prompt_bytes / prompt_tokens
            self.bytes_per_token += _LEARN * (ratio - self.bytes_per_token)
        if stopped:
            self.length = (
                completion_tokens if not self.length else self.length + _LEARN * (completion_tokens - self.length)
            )

    def _note_fresh(self, user: str, share: float) -> None:
        before = self._fresh.pop(user, share)
        self._fresh[user] = before + _LEARN_FRESH * (share - before)
        if len(self._fresh) > _USERS:
            del self._fresh[next(iter(self._fresh))]

    def waiting(self) -> dict[Class, int]:
        """Admitted texts by class that have no token yet."""
        return {
            name: sum(place.bid.places for place in self.places if not place.begun and place.bid.priority == name)
            for name in CLASSES
        }

    def running(self) -> dict[Class, int]:
        """Texts by class that are being written."""
        return {
            name: sum(place.bid.places for place in self.places if place.begun and place.bid.priority == name)
            for name in CLASSES
        }

    @property
    def present(self) -> int:
        return self._present

    def estimate(self, bid: Bid, stats: Stats) -> Estimate:
        """When ``bid`` would be served, if it came now and all that is before it goes as expected."""
        return self._estimate(self._place(bid), stats)

    def _place(self, bid: Bid) -> Place:
        expected = bid.tokens if bid.whole else min(bid.tokens, max(round(self.length), 1))
        tokens = bid.prompt_bytes / self.bytes_per_token * self._fresh.get(bid.user, 1.0)
        return Place(bid=bid, prompt_tokens=round(tokens), expected=expected)

    def _check_deadline(self, place: Place, deadline_ms: int, stats: Stats | None) -> None:
        if stats is None or not stats.step_ms:
            return
        expected = place.bid.spent_ms + self._estimate(place, stats).last_ms
        if expected > SAFETY * deadline_ms:
            raise DeadlineError(
                f"this would take about {expected / 1000:.1f} s, and {deadline_ms / 1000:g} s are allowed; "
                "allow more, ask for fewer tokens, or send it when less is going on",
                reason="deadline",
                retry_after=_seconds(expected - deadline_ms),
            )

    def _estimate(self, place: Place, stats: Stats) -> Estimate:
        rank = _RANK[place.bid.priority]
        ahead = [one for one in self.places if _RANK[one.bid.priority] <= rank]
        unread = sum(one.prompt_tokens for one in ahead if not one.begun)
        read_ms = stats.prefill_ms * (unread + place.prompt_tokens)
        turn_ms = _turn(ahead, self.limits.slots) * stats.step_ms
        first = turn_ms + read_ms + stats.step_ms
        return Estimate(first, first + stats.step_ms * (place.expected - 1))

    def _busy(self, over: Iterable[Place], stats: Stats | None, reason: Reason, what: str) -> BusyError:
        seconds = UNKNOWN_SECONDS
        if stats is not None and stats.step_ms:
            unread = sum(one.prompt_tokens for one in self.places if not one.begun) * stats.prefill_ms
            soonest = min((one.left() * stats.step_ms + (0 if one.begun else unread) for one in over), default=0.0)
            seconds = _seconds(soonest)
        return BusyError(f"{what}; try again in {seconds} s", reason=reason, retry_after=seconds)


def _turn(ahead: Iterable[Place], slots: int) -> int:
    """Steps until a slot is free for whoever comes after ``ahead``: each text takes the first slot that is."""
    free = [0] * slots
    for place in sorted(ahead, key=lambda one: not one.begun):
        for _ in range(place.bid.places):
            heapq.heapreplace(free, free[0] + place.left())
    return free[0]


def _seconds(milliseconds: float) -> int:
    """Whole seconds for ``Retry-After`` (RFC 9110, section 10.2.3), at least one."""
    return min(max(math.ceil(milliseconds / 1000), 1), LONGEST_SECONDS)

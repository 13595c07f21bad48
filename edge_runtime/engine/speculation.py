"""Guessing the next tokens from those that are there already: answers quote their sources. Pure.

Prompt lookup decoding (Saxena 2023; Yang et al. 2023, "Inference with Reference"): what followed the last three tokens
the last time they stood in the text is tried in one step, and what the model would have said otherwise is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NGRAM = 3
MOST = 7  # guesses a step: with the token before them they are the eight rows that kernels like
_SLOWLY = 0.9  # weight of the past, at each guess, in the share of guesses that come true
_FIRST_HOPE = 0.5  # that share, before any guess was made


@dataclass(slots=True)
class Lookup:
    """The n-grams of one sequence, and how often its guesses came true."""

    drafted: int = 0
    accepted: int = 0
    _places: dict[tuple[int, ...], int] = field(default_factory=dict)
    _tokens: list[int] = field(default_factory=list)
    _hope: float = _FIRST_HOPE
    _watched: list[int] = field(default_factory=list)  # guesses that were not tried: do they come true?
    _right: int = 0  # how many of them did

    def extend(self, tokens: list[int]) -> None:
        """More of the text, read or written. A place is known once something stands behind it."""
        for token in tokens:
            if self._watched:
                self._compare(token)
            if len(self._tokens) >= NGRAM:
                self._places[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
            self._tokens.append(token)

    def guess(self, most: int = MOST) -> list[int]:
        """What followed the last time, at most ``most`` tokens; nothing while others are compared with the text."""
        if len(self._tokens) < NGRAM or self._watched:
            return []
        place = self._places.get(tuple(self._tokens[-NGRAM:]))
        return [] if place is None else self._tokens[place : place + most]

    def pays(self, guesses: list[int], alone: float, together: float) -> bool:
        """Whether one step of ``together`` milliseconds is expected to bring more than steps of ``alone`` would.

        Where it is not, the text as it goes on is compared with the guesses: that costs nothing, and where they come
        true the next ones will pay.
        """
        expected = sum(self._hope**number for number in range(len(guesses) + 1))
        if expected * alone > together:
            return True
        self._watched, self._right = list(guesses), 0
        return False

    def tell(self, drafted: int, accepted: int) -> None:
        """So many guesses were tried, and so many of the first were right."""
        self.drafted += drafted
        self.accepted += accepted
        self._learn(drafted, accepted)

    def _compare(self, token: int) -> None:
        right = token == self._watched[self._right]
        self._right += right
        if not right or self._right == len(self._watched):
            self._learn(len(self._watched), self._right)
            self._watched = []

    def _learn(self, made: int, right: int) -> None:
        told = min(right + 1, made)
        past = _SLOWLY**told
        self._hope = past * self._hope + (1 - past) * (right / told)

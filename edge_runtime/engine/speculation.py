"""Guessing the next tokens from those that are there already: answers quote their sources. Pure.

Prompt lookup decoding (Saxena 2023; Yang et al. 2023, "Inference with Reference"): what followed the last three tokens
the last time they stood in the text is tried in one step, and what the model would have said otherwise is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NGRAM = 3
MOST = 7  # guesses a step: with the token before them they are the eight rows that kernels like
_SLOWLY = 0.8  # weight of the past in what is expected of a guess
_FIRST_HOPE = 0.7  # share of guesses that come true, before any was tried
_RETRY = 48  # tokens after which speculation that did not pay is tried again


@dataclass(slots=True)
class Lookup:
    """The n-grams of one sequence, and how often its guesses came true."""

    drafted: int = 0
    accepted: int = 0
    _places: dict[tuple[int, ...], int] = field(default_factory=dict)
    _tokens: list[int] = field(default_factory=list)
    _hope: float = _FIRST_HOPE
    _rests: int = 0

    def extend(self, tokens: list[int]) -> None:
        """More of the text, read or written. A place is known once something stands behind it."""
        for token in tokens:
            if len(self._tokens) >= NGRAM:
                self._places[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
            self._tokens.append(token)
        self._rests = max(self._rests - len(tokens), 0)

    def guess(self, most: int = MOST) -> list[int]:
        """What followed the last time, at most ``most`` tokens."""
        if len(self._tokens) < NGRAM or self._rests:
            return []
        place = self._places.get(tuple(self._tokens[-NGRAM:]))
        return [] if place is None else self._tokens[place : place + most]

    def pays(self, guesses: int, alone: float, together: float) -> bool:
        """Whether one step of ``together`` milliseconds is expected to bring more than steps of ``alone`` would."""
        expected = sum(self._hope**number for number in range(guesses + 1))
        if expected * alone > together:
            return True
        self._rests = _RETRY
        self._hope = max(self._hope, _FIRST_HOPE)
        return False

    def tell(self, drafted: int, accepted: int) -> None:
        """So many guesses were tried, and so many of the first were right."""
        self.drafted += drafted
        self.accepted += accepted
        tried = min(accepted + 1, drafted)
        self._hope = _SLOWLY * self._hope + (1 - _SLOWLY) * (accepted / tried)

"""The shortest end of a JSON text that a grammar holds, found by trying: close what is open, open nothing.

A request that has few tokens left follows such an end, so that its document is whole rather than cut.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_runtime.engine.llama import Vocabulary

# Outside a string: what ends things first, then the shortest values, then what opens something.
_ENDS = ("}", "]", "null", "0", "false", "true", '"', "1", "2", "3", "4", "5", "6", "7", "8", "9", "-", "[", "{")
_LONGEST = 12  # characters of a token that fills a string
_WORDS = 24  # of them that are tried
_FEW = 8  # tokens that fill strings: an end with more of them is worth another try, unless it is short
_SHORT = 48
_SLACK = 64  # tokens that a plan may have beyond the limit before it is given up
_QUOTE, _ESCAPE = ord('"'), ord("\\")


class Scanner:
    """Whether a JSON text stands inside a string."""

    __slots__ = ("escaped", "inside")

    def __init__(self, *, inside: bool = False, escaped: bool = False) -> None:
        self.inside = inside
        self.escaped = escaped

    def feed(self, piece: bytes) -> None:
        for byte in piece:
            if self.escaped:
                self.escaped = False
            elif self.inside and byte == _ESCAPE:
                self.escaped = True
            elif byte == _QUOTE:
                self.inside = not self.inside

    def copy(self) -> Scanner:
        return Scanner(inside=self.inside, escaped=self.escaped)


class Closing:
    """Finds ends for one vocabulary; ``pieces`` are its tokens' bytes."""

    def __init__(self, vocabulary: Vocabulary, pieces: Sequence[bytes]) -> None:
        self._vocabulary = vocabulary
        tokens = {piece: token for token, piece in enumerate(pieces)}
        self._ends = [tokens[text.encode()] for text in _ENDS if text.encode() in tokens]
        self._quotes = [tokens[b'"']] if b'"' in tokens else []
        self._fills = _fills(pieces)

    def plan(self, parser: Any, scanner: Scanner, *, limit: int) -> list[int] | None:
        """Tokens from here to a whole document; None where none of at most ``limit`` (and some more) was found."""
        best: list[int] | None = None
        for fill in self._fills:
            found, filled = self._follow(parser.deep_copy(), scanner.copy(), fill, limit + _SLACK)
            if found is None:
                continue
            if filled <= _FEW or len(found) <= _SHORT:
                return found
            if best is not None and len(found) >= len(best):
                return best
            best = found
        return best

    def _follow(self, parser: Any, scanner: Scanner, fill: Sequence[int], most: int) -> tuple[list[int] | None, int]:
        """An end, and how many of its tokens were chosen only to fill a string."""
        taken: list[int] = []
        filled = 0
        while not parser.is_accepting():
            if len(taken) > most or parser.is_error():
                return None, filled
            step = parser.compute_ff_tokens() or self._close(parser, scanner)
            if not step:
                filled += 1
                step = self._fill(parser, fill)
            if not step or not parser.consume_tokens(step):
                return None, filled
            taken += step
            for token in step:
                scanner.feed(self._vocabulary.piece(token))
        return taken, filled

    def _close(self, parser: Any, scanner: Scanner) -> list[int]:
        return _first(parser, self._quotes if scanner.inside else self._ends)

    def _fill(self, parser: Any, fill: Sequence[int]) -> list[int]:
        # One token's check costs a thousandth of a whole mask.
        if found := _first(parser, fill):
            return found
        packed = np.frombuffer(parser.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(packed, count=self._vocabulary.width, bitorder="little")
        best = int(allowed.argmax())
        return [best] if allowed[best] else []


def _first(parser: Any, tokens: Sequence[int]) -> list[int]:
    """The first of the tokens that may come, alone in a list."""
    return next(([token] for token in tokens if parser.validate_tokens([token]) == 1), [])


def _fills(pieces: Sequence[bytes]) -> list[list[int]]:
    """Orders of preference in which a string is filled that cannot be closed yet.

    First words, the longest first: they pass a minimum length soonest. A pattern may keep them from its end
    (``[a-z]+@``), so then punctuation before letters, and then two orders without a plan.
    """
    words = [token for token, piece in enumerate(pieces) if 2 <= len(piece) <= _LONGEST and _is_word(piece)]
    words.sort(key=lambda token: -len(pieces[token]))
    single = [token for token, piece in enumerate(pieces) if len(piece) == 1 and 32 < piece[0] < 127 and piece != b"\\"]
    letters = [token for token in single if _is_word(pieces[token])]
    signs = [token for token in single if not pieces[token].isalnum()]
    shuffles = [random.Random(seed).sample(single, len(single)) for seed in range(2)]  # noqa: S311
    return [words[:_WORDS] + letters + single, signs + single, *shuffles]


def _is_word(piece: bytes) -> bool:
    return piece.isalpha() and piece.isascii()

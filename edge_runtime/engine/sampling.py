"""One row of logits to one token: greedy, or drawn from what top-k, top-p and min-p leave. Pure NumPy, and exact.

The order is llama.cpp's: penalties and bias, top-k, top-p, min-p, then temperature. Randomness is Python's Mersenne
Twister from the request's seed, two numbers for each token, so that the same seed gives the same tokens wherever the
logits are the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.engine.messages import Params
from edge_runtime.errors import EngineError, RequestError

Row = npt.NDArray[np.float32]

MOST_LOGPROBS = 100
_NEAR = 16.0  # natural log units: where top-k of a row is looked for first


def log_softmax(logits: Row) -> Row:
    """Natural log-probabilities over the last axis, float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Row = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def best(logits: Row, count: int) -> npt.NDArray[np.intp]:
    """Indices of the ``count`` largest logits, largest first; ties go to the lower index, as argmax has it."""
    if count >= len(logits):
        return np.argsort(-logits, kind="stable")
    near = np.flatnonzero(logits >= logits.max() - _NEAR)
    if len(near) < count:
        near = np.arange(len(logits))
    values = logits[near]
    if len(near) > count:
        edge = np.partition(values, len(values) - count)[len(values) - count]
        kept = values >= edge
        near, values = near[kept], values[kept]
    return near[np.argsort(-values, kind="stable")][:count]


@dataclass(frozen=True, slots=True)
class Choice:
    token: int
    logprob: float | None  # natural log, from the logits as the model gave them
    top: tuple[tuple[int, float], ...] = ()  # token and log-probability, best first


class Sampler:
    """Draws the tokens of one request.

    Raises (on construction):
        RequestError: a parameter that cannot be, with its name.
    """

    def __init__(self, params: Params, width: int) -> None:
        _check(params, width)
        self._params = params
        self._random = random.Random(params.seed)  # noqa: S311 - sampling wants a repeatable stream, not a secret one
        self._chances = self._roll()
        self._counts: dict[int, int] = {}
        self._bias_tokens = np.fromiter(params.logit_bias, np.intp)
        self._bias = np.fromiter(params.logit_bias.values(), np.float32)
        self._plain = not (params.logit_bias or params.frequency_penalty or params.presence_penalty)

    def choose(self, logits: Row, *, known: Row | None = None) -> Choice:
        """The next token after this row of logits, which is left as it is.

        Log-probabilities are those of ``known``, where the row was masked.

        Raises:
            EngineError: the row holds no numbers.
        """
        choice = self.look(logits, known=known)
        self.count(choice.token)
        return choice

    def count(self, token: int) -> None:
        """A token was taken, here or in another process: penalties know of it, and the next has other numbers."""
        self._counts[token] = self._counts.get(token, 0) + 1
        self._chances = self._roll()

    def look(self, logits: Row, *, known: Row | None = None) -> Choice:
        """As :meth:`choose`, and the token is not counted: until one is, a row gives the same token again.

        A masked row has a number of its own: with the one by which a token was refused, the likelier of those that are
        left would come too often.
        """
        row = logits if self._plain else self._adjusted(logits)
        token = int(row.argmax())
        if not np.isfinite(row[token]):
            raise EngineError("the model gave no numbers; check its file with `edge model verify`")
        if self._params.temperature > 0:
            token = self._draw(row, self._chances[0] if known is None else self._chances[1])
        if self._params.logprobs is None:
            return Choice(token, None)
        logs = log_softmax(logits if known is None else known)
        top = best(logs, self._params.logprobs).tolist() if self._params.logprobs else []
        return Choice(token, float(logs[token]), tuple((i, float(logs[i])) for i in top))

    def _adjusted(self, logits: Row) -> Row:
        row = logits.copy()
        if self._counts and (self._params.frequency_penalty or self._params.presence_penalty):
            seen = np.fromiter(self._counts, np.intp)
            counts = np.fromiter(self._counts.values(), np.float32)
            row[seen] -= counts * np.float32(self._params.frequency_penalty) + np.float32(self._params.presence_penalty)
        row[self._bias_tokens] += self._bias
        return row

    def _roll(self) -> tuple[float, float]:
        """For the next token: drawn whether they are needed or not, so that counting alone leads to the same place."""
        return self._random.random(), self._random.random()

    def _draw(self, row: Row, chance: float) -> int:
        params = self._params
        order = best(row, params.top_k or len(row))
        weights = np.exp((row[order] - row[order[0]]).astype(np.float64))
        if params.top_p < 1:
            total = np.cumsum(weights)
            keep = int(np.searchsorted(total, params.top_p * total[-1])) + 1
            order, weights = order[:keep], weights[:keep]
        if params.min_p > 0:
            keep = int(np.count_nonzero(weights >= params.min_p * weights[0]))
            order, weights = order[:keep], weights[:keep]
        total = np.cumsum(weights ** (1.0 / params.temperature))
        place = int(np.searchsorted(total, chance * total[-1], side="right"))
        return int(order[min(place, len(order) - 1)])


def _check(params: Params, width: int) -> None:
    limits = (
        ("max_tokens", params.max_tokens, 1, 2**31),
        ("temperature", params.temperature, 0, 100),
        ("top_k", params.top_k, 0, 2**31),
        ("top_p", params.top_p, 0, 1),
        ("min_p", params.min_p, 0, 1),
        ("frequency_penalty", params.frequency_penalty, -100, 100),
        ("presence_penalty", params.presence_penalty, -100, 100),
        ("logprobs", params.logprobs or 0, 0, MOST_LOGPROBS),
    )
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise RequestError(f"{name} is {value}; give a number from {low} to {high}", param=name)
    for token, bias in params.logit_bias.items():
        if not 0 <= token < width:
            raise RequestError(
                f"logit_bias names token {token}; this model has tokens 0 to {width - 1}", param="logit_bias"
            )
        if not np.isfinite(bias):
            raise RequestError(f"logit_bias of token {token} is not a finite number; give one", param="logit_bias")

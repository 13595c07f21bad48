"""From OpenAI's sampling fields to the engine's, and from the engine's tokens to OpenAI's log-probabilities. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_runtime import openai_protocol
from edge_runtime.engine.messages import Params, Token, TopToken
from edge_runtime.errors import RequestError

_NUMBER = re.compile("[0-9]{1,9}")
TEMPERATURE = 0.7  # where a request names none: OpenAI's 1.0 is too much for models this small


@dataclass(slots=True)
class Draft:
    """What has been generated so far, after an echoed prompt."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    offset: int = field(init=False)

    def __post_init__(self) -> None:
        self.offset = len(self.text)

    def add(self, token: Token) -> None:
        self.text += token.text
        self.tokens.append(token)


def sampling(body: openai_protocol.Sampling, *, limit: int, logprobs: int | None) -> Params:
    """
    Raises:
        RequestError: a key of ``logit_bias`` is no token number.
    """
    defaults = Params()
    temperature = TEMPERATURE if body.temperature is None else body.temperature
    return Params(
        max_tokens=limit,
        temperature=0.0 if body.edge is not None and body.edge.deterministic else temperature,
        top_k=defaults.top_k if body.top_k is None else body.top_k,
        top_p=defaults.top_p if body.top_p is None else body.top_p,
        min_p=defaults.min_p if body.min_p is None else body.min_p,
        seed=None if body.seed is None else body.seed & 0xFFFFFFFF,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=_biases(body.logit_bias or {}),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
        cache_prompt=body.cache_prompt is not False,
    )


def _biases(given: dict[str, float]) -> dict[int, float]:
    if not all(map(_NUMBER.fullmatch, given)):
        raise RequestError("logit_bias: each key must be a token's number", param="logit_bias")
    return {int(key): value for key, value in given.items()}


def token_logprob(token: Token) -> openai_protocol.TokenLogprob:
    return openai_protocol.TokenLogprob(
        token=token.text,
        logprob=token.logprob or 0.0,
        bytes=list(token.text.encode()),
        top_logprobs=[_top(item) for item in token.top],
    )


def _top(item: TopToken) -> openai_protocol.TopLogprob:
    return openai_protocol.TopLogprob(
        token=item.text.decode("utf-8", "replace"), logprob=item.logprob, bytes=list(item.text)
    )


def completion_logprobs(tokens: Sequence[Token], *, offset: int) -> openai_protocol.CompletionLogprobs:
    """The older shape: parallel lists; ``offset`` is where the first token's text begins."""
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    tops = [{item.text.decode("utf-8", "replace"): item.logprob for item in token.top} for token in tokens]
    return openai_protocol.CompletionLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.logprob or 0.0 for token in tokens],
        top_logprobs=tops if any(tops) else None,
        text_offset=offsets,
    )

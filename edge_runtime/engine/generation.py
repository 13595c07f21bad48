"""What one request does, step by step: prefill in chunks, then a token at a time, or the score of some choices.

A job yields after every ``llama_decode``, so that its owner can look at the socket in between; it sends nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal

from edge_runtime.engine.detokenizer import Detokenizer
from edge_runtime.engine.llama import Llama
from edge_runtime.engine.messages import Done, Score, Scored, Submit, Token, TopToken, Up
from edge_runtime.engine.sampling import Sampler, log_softmax
from edge_runtime.errors import ContextLengthError, RequestError

Steps = Iterator[Up | None]


class Prefix:
    """The tokens whose KV cells sequence 0 holds: what a next prompt shares with them is not evaluated again."""

    def __init__(self, model: Llama) -> None:
        self._model = model
        self._tokens: list[int] = []

    def __len__(self) -> int:
        return len(self._tokens)

    def keep(self, prompt: Sequence[int]) -> int:
        """Drop the cells that ``prompt`` does not share; its last token is always left to evaluate. Tokens kept."""
        shared = 0
        for mine, theirs in zip(self._tokens, prompt[:-1], strict=False):
            if mine != theirs:
                break
            shared += 1
        return self.cut(shared)

    def cut(self, length: int) -> int:
        """Keep the first ``length`` tokens; none where the model's memory cannot be cut (recurrent models)."""
        if length < len(self._tokens):
            if not self._model.forget(0, length):
                self._model.clear()
                length = 0
            del self._tokens[length:]
        return len(self._tokens)

    def clear(self) -> None:
        """Drop every cell and overwrite what it held."""
        self._model.clear()
        self._tokens.clear()

    def extend(self, tokens: Sequence[int], *, outputs: int = 1) -> None:
        """Evaluate ``tokens`` after those that are there.

        Raises:
            EngineError: llama.cpp refused; every cell is dropped, for none can be trusted now.
        """
        try:
            self._model.decode(tokens, len(self._tokens), outputs=outputs)
        except BaseException:
            self.clear()
            raise
        self._tokens.extend(tokens)

    def chunks(self, prompt: Sequence[int]) -> Iterator[None]:
        """Evaluate what is missing of ``prompt``, yielding after each chunk; the last token has logits."""
        while len(self) < len(prompt):
            self.extend(prompt[len(self) : len(self) + self._model.batch])
            yield


class Generation:
    """One ``submit``: its text, and the counts that ``done`` reports."""

    def __init__(self, request: Submit, model: Llama, prefix: Prefix) -> None:
        self.id = request.id
        self._request = request
        self._model = model
        self._prefix = prefix
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._cached = 0
        self._began = self._first = time.perf_counter()

    def steps(self) -> Steps:
        """Token after token, then :class:`Done`.

        Raises:
            RequestError: a parameter that cannot be.
            ContextLengthError: the prompt leaves no room in the context.
            EngineError: llama.cpp refused.
        """
        self._began = self._first = time.perf_counter()
        params, model, prefix = self._request.params, self._model, self._prefix
        sampler = Sampler(params, model.width)
        prompt = model.vocabulary.tokens(self._request.prompt, bos=self._request.add_bos)
        if not prompt:
            raise RequestError("the prompt holds no tokens; send some text", param="prompt")
        self._prompt_tokens = len(prompt)
        room = check_fit(len(prompt), model.context)
        if not params.cache_prompt:
            prefix.cut(0)
        self._cached = prefix.keep(prompt)
        for _ in prefix.chunks(prompt):
            yield None
        self._first = time.perf_counter()
        text = Detokenizer(params.stop)
        # A control token has no text: a stop string that spells one stands for the token.
        stops = model.vocabulary.controls(params.stop)
        reason: Literal["stop", "length"] = "length"
        for left in range(min(params.max_tokens, room), 0, -1):
            choice = sampler.choose(model.logits())
            self._completion_tokens += 1
            if choice.token in stops or (model.vocabulary.ends(choice.token) and not params.ignore_eos):
                reason = "stop"
                break
            piece = model.vocabulary.piece(choice.token)
            final = text.feed(piece)
            top = [TopToken(model.vocabulary.piece(token, special=True), value) for token, value in choice.top]
            if final or choice.logprob is not None:
                yield self._token(final, piece, choice.logprob, top)
            if text.stopped:
                reason = "stop"
                break
            if left > 1:
                prefix.extend([choice.token])
                yield None
        if rest := text.finish():
            yield self._token(rest, b"", None, [])
        yield self.done("stop" if text.stopped else reason)

    def _token(self, text: str, piece: bytes, logprob: float | None, top: list[TopToken]) -> Token:
        return Token(id=self.id, text=text, tokens=self._completion_tokens, piece=piece, logprob=logprob, top=top)

    def done(self, reason: Literal["stop", "length", "cancelled"]) -> Done:
        now = time.perf_counter()
        prefilled = self._first if self._first > self._began else now
        return Done(
            id=self.id,
            reason=reason,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached,
            prefill_ms=(prefilled - self._began) * 1e3,
            decode_ms=(now - prefilled) * 1e3,
        )


class Scoring:
    """One ``score``: log-probabilities of choices, each read straight after the shared prompt.

    A choice is cut into tokens by itself, as plain text: it cannot smuggle in a control token, and its first token does
    not depend on the prompt's last.
    """

    def __init__(self, request: Score, model: Llama, prefix: Prefix) -> None:
        self.id = request.id
        self._request = request
        self._model = model
        self._prefix = prefix

    def steps(self) -> Steps:
        """One :class:`Scored` at the end.

        Raises:
            RequestError: no choices, or an empty one.
            ContextLengthError: the prompt with its longest choice does not fit.
            EngineError: llama.cpp refused.
        """
        model, prefix = self._model, self._prefix
        prompt = model.vocabulary.tokens(self._request.prompt)
        choices = [model.vocabulary.tokens(text, bos=False, special=False) for text in self._request.choices]
        if not prompt or not choices or not all(choices):
            raise RequestError("a score needs a prompt and choices that are not empty; send some text", param="choices")
        check_fit(len(prompt) + max(map(len, choices)), model.context)
        prefix.keep(prompt)
        for _ in prefix.chunks(prompt):
            yield None
        first = log_softmax(model.logits())
        sums = [float(first[choice[0]]) for choice in choices]
        for number, choice in enumerate(choices):
            for start in range(0, len(choice) - 1, model.outputs):
                part = choice[start : min(start + model.outputs, len(choice) - 1)]
                prefix.extend(part, outputs=len(part))
                for row, token in enumerate(choice[start + 1 : start + 1 + len(part)]):
                    sums[number] += float(log_softmax(model.logits(row))[token])
                yield None
            if len(choice) > 1 and prefix.cut(len(prompt)) < len(prompt):
                yield from (None for _ in prefix.chunks(prompt))
        yield Scored(id=self.id, logprobs=sums, tokens=[len(choice) for choice in choices])

    def done(self, reason: Literal["cancelled"]) -> Done:
        """The end of a score that was cancelled: nothing was counted."""
        return Done(
            id=self.id,
            reason=reason,
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            prefill_ms=0.0,
            decode_ms=0.0,
        )


def check_fit(tokens: int, context: int) -> int:
    """Tokens that may follow a prompt of ``tokens``.

    Raises:
        ContextLengthError: there is no room for one.
    """
    if tokens >= context:
        raise ContextLengthError(
            f"the prompt has {tokens:,} tokens, and the model's context holds {context:,}: at most {context - 1:,} fit "
            "with room for one more; shorten the prompt, or raise [engine] context",
            param="prompt",
        )
    return context - tokens


Job = Generation | Scoring

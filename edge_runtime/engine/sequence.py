"""One generation while it is served: its tokens, how far they are evaluated, what each new row of logits makes of it.

It evaluates nothing and sends nothing; :mod:`.generator` and :mod:`.loop` do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from typing import Literal, Protocol

import numpy as np

from edge_runtime.engine.detokenizer import Detokenizer
from edge_runtime.engine.llama import Logits, Vocabulary
from edge_runtime.engine.messages import Class, Done, Submit, Tier, Token, TopToken, Up
from edge_runtime.engine.prefixes import Match, Owner, Reading, Tokens
from edge_runtime.engine.sampling import Choice, Sampler
from edge_runtime.engine.speculation import Lookup
from edge_runtime.errors import ContextLengthError, RequestError

HEADROOM = 64  # cells beyond its prompt that a request must find free
DIVERGED_TOKENS = 12  # how much of the text that differed is told
Reason = Literal["stop", "length", "cancelled"]


class Structure(Protocol):
    """What the text must be (:mod:`edge_runtime.engine.structured`)."""

    @property
    def finished(self) -> bool: ...
    def allows(self, token: int) -> bool: ...
    def masked(self, logits: Logits, remaining: int) -> Logits: ...
    def closing(self, remaining: int) -> bool: ...
    def accept(self, token: int) -> None: ...


class Sequence:
    """One ``submit``.

    Raises (on construction):
        RequestError: a parameter that cannot be, or a prompt without tokens.
        ContextLengthError: the prompt leaves no room in the context.
    """

    def __init__(
        self, request: Submit, vocabulary: Vocabulary, *, context: int, adapter: str, structure: Structure | None
    ) -> None:
        self.id = request.id
        self.request = request
        self.params = request.params
        self.priority: Class = request.priority
        self.owner = Owner(request.domain, adapter)
        self.arrived = self.began = self.first = time.perf_counter()
        self._vocabulary = vocabulary
        self._sampler = Sampler(request.params, vocabulary.width)
        self.prompt = vocabulary.tokens(request.prompt, bos=request.add_bos)
        if not self.prompt:
            raise RequestError("the prompt holds no tokens; send some text", param="prompt")
        self.limit = min(request.params.max_tokens, check_fit(len(self.prompt), context))
        self.prompt_array = np.array(self.prompt, np.int32)
        self.public = _public(request, vocabulary, self.prompt)
        self.structure = structure
        self._text = Detokenizer(request.params.stop)
        # A control token has no text: a stop string that spells one stands for the token.
        self._stops = vocabulary.controls(request.params.stop)
        self.tokens = list(self.prompt)
        self.evaluated = 0  # tokens that have cells
        self.keeps = request.params.cache_prompt  # what is read for it may serve others, now and later
        self.slot = -1  # the sequence id in llama.cpp; -1: none
        self.canonical = False  # it has been alone since its beginning
        self.reading = Reading()
        self.match = Match(0)
        self.cached = 0
        self.tier: Tier = "none"
        self.diverged = ""
        self.parked = 0
        self.since = self.arrived  # when it began to wait, the last time
        self.written = 0
        self.lookup = Lookup()
        self.lookup.extend(self.tokens)
        self.last_step = self.arrived
        self.reason: Reason | None = None
        self._resume(request.resume)

    @property
    def headroom(self) -> int:
        """Cells beyond its prompt that it should find free."""
        return min(HEADROOM, self.limit)

    @property
    def greedy(self) -> bool:
        return self.params.temperature == 0

    @property
    def pending(self) -> int:
        """Tokens that are there and not evaluated."""
        return len(self.tokens) - self.evaluated

    @property
    def reads(self) -> bool:
        """Whether its prompt is being evaluated still (or again)."""
        return self.pending > 1 or self.evaluated < len(self.prompt)

    @property
    def array(self) -> Tokens:
        """Every token, prompt and written ones."""
        written = self.tokens[len(self.prompt) :]
        return np.concatenate([self.prompt_array, np.array(written, np.int32)]) if written else self.prompt_array

    def _resume(self, tokens: Items[int]) -> None:
        """Take up where a dead engine left: these were sent already, and may be all that there is to send."""
        width = self._vocabulary.width
        if not all(0 <= token < width for token in tokens):
            raise RequestError(f"resume names a token that is not there; this model has tokens 0 to {width - 1}")
        for token in tokens[: self.limit]:
            self._sampler.count(token)
            if self.structure is not None:
                # What end is planned depends on when it was looked for: at each token, as in choose.
                self.structure.closing(self.limit - self.written)
                self.structure.accept(token)
            self._text.feed(self._vocabulary.piece(token))
            self.written += 1
            self._append(token)
        if tokens:
            self.reason = self._over()

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        self.lookup.extend([token])

    def choose(self, logits: Logits) -> Choice:
        """The next token after this row.

        The grammar looks at the one token that was drawn; only where it refuses that, the whole row is masked.

        Raises:
            EngineError: the row holds no numbers, or the grammar cannot go on.
        """
        structure = self.structure
        if structure is None:
            return self._sampler.choose(logits)
        remaining = self.limit - self.written
        if not structure.closing(remaining):
            choice = self._sampler.look(logits)
            if structure.allows(choice.token):
                self._sampler.count(choice.token)
                return choice
        return self._sampler.choose(structure.masked(logits, remaining), known=logits)

    def take(self, logits: Logits) -> list[Up]:
        """Choose the next token, and what there is to send; :attr:`reason` is set where it was the last."""
        if self.reason is not None:
            return self._end()
        choice = self.choose(logits)
        if self.written == len(self.request.resume):
            self.first = time.perf_counter()
        self.written += 1
        if choice.token in self._stops or (self._vocabulary.ends(choice.token) and not self.params.ignore_eos):
            self.reason = "stop"
            return self._end()
        if self.structure is not None:
            self.structure.accept(choice.token)
        self._append(choice.token)
        piece = self._vocabulary.piece(choice.token)
        top = [TopToken(self._vocabulary.piece(token, special=True), value) for token, value in choice.top]
        # Tokens without text are sent as well: whoever resumes needs them all.
        out: list[Up] = [self._token(self._text.feed(piece), piece, choice, top)]
        self.reason = self._over()
        return out if self.reason is None else [*out, *self._end()]

    def _over(self) -> Reason | None:
        """Why nothing may follow the last token, if so."""
        if self._text.stopped or (self.structure is not None and self.structure.finished):
            return "stop"
        return "length" if self.written >= self.limit else None

    def _token(self, text: str, piece: bytes, choice: Choice, top: list[TopToken]) -> Token:
        return Token(
            id=self.id,
            text=text,
            tokens=self.written,
            piece=piece,
            logprob=choice.logprob,
            top=top,
            ids=[choice.token],
        )

    def _end(self) -> list[Up]:
        out: list[Up] = []
        if rest := self._text.finish():
            out.append(Token(id=self.id, text=rest, tokens=self.written))
        if self._text.stopped:
            self.reason = "stop"
        return [*out, self.done(self.reason or "stop")]

    def done(self, reason: Reason) -> Done:
        now = time.perf_counter()
        prefilled = self.first if self.first > self.began else now
        return Done(
            id=self.id,
            reason=reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=self.written,
            cached_tokens=self.cached,
            prefill_ms=(prefilled - self.began) * 1e3,
            decode_ms=(now - prefilled) * 1e3,
            tier=self.tier,
            diverged=self.diverged,
            drafted=self.lookup.drafted,
            accepted=self.lookup.accepted,
            parked=self.parked,
        )

    def tell_divergence(self, shared: int) -> None:
        """Keep the first text that nothing kept begins with."""
        if shared < len(self.prompt) - 1:
            words = self._vocabulary
            cut = self.prompt[shared : shared + DIVERGED_TOKENS]
            self.diverged = b"".join(words.piece(token, special=True) for token in cut).decode("utf-8", "replace")


def _public(request: Submit, vocabulary: Vocabulary, prompt: list[int]) -> int:
    """Tokens at the beginning of the prompt that are nobody's in particular."""
    if not request.public:
        return 0
    known = vocabulary.tokens(request.public, bos=request.add_bos)
    shared = 0
    for mine, theirs in zip(known, prompt, strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared


def check_fit(tokens: int, context: int) -> int:
    """Tokens that may follow a prompt of ``tokens``.

    Raises:
        ContextLengthError: there is no room for one. It names no field: most prompts are made of several.
    """
    if tokens >= context:
        raise ContextLengthError(
            f"the prompt has {tokens:,} tokens, and the model's context holds {context:,}: at most {context - 1:,} fit "
            "with room for one more; shorten the prompt, or raise [engine] context"
        )
    return context - tokens

"""Output that cannot but be what was asked for: which tokens may come next, after the llguidance library.

Runs in the engine child, and is imported when the first such request comes: building the library's view of a vocabulary
takes up to half a second. A grammar stands beside the sampler, not in it: sample, ask :meth:`Matcher.allows`, and only
where it says no sample again from :meth:`Matcher.masked`. What is compiled here was bounded by
:mod:`edge_runtime.engine.schemas` before; the library's own limits are the second line.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import llguidance
import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.engine import structure
from edge_runtime.engine.closing import Closing, Scanner
from edge_runtime.engine.llama import Logits, Vocabulary
from edge_runtime.engine.structure import CLOSING, OPENING, Arguments, Calls, Document, Structure
from edge_runtime.engine.watching import Watch
from edge_runtime.errors import EngineError, RequestError

_KEPT = 16  # compiled grammars
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LOOSE = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]{0,16}"}  # as models indent
_PARAM = "response_format"


class _Words:
    """A vocabulary as the library reads it: control tokens are marked, so that no text can be one of them."""

    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.eos
        self.tokens = [
            (b"\xff" if vocabulary.is_control(token) or vocabulary.ends(token) else b"") + piece
            for token in range(vocabulary.width)
            for piece in (vocabulary.piece(token, special=True),)
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._vocabulary.tokens(plain, bos=False, special=False)


class Grammars:
    """Matchers for one model; the last few grammars are kept compiled."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        words = _Words(vocabulary)
        self.vocabulary = vocabulary
        self.width = vocabulary.width
        self.ends = [token for token in range(vocabulary.width) if vocabulary.ends(token)]
        self.tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(words),
            eos_token=[vocabulary.eos, *(token for token in self.ends if token != vocabulary.eos)],
            slices=[],
        )
        self.closing = Closing(vocabulary, words.tokens)
        # Tokens inside which a call could begin: after its mark, or after the colon before its arguments.
        self._straddling = [
            (token, piece)
            for token, piece in enumerate(words.tokens)
            if (b">" in piece[:-1] or b":" in piece[:-1]) and not piece.startswith(b"\xff")
        ]
        self._limits = llguidance.LLParserLimits(
            initial_lexer_fuel=1_000_000,
            step_lexer_fuel=100_000,
            step_max_items=20_000,
            max_lexer_states=50_000,
            max_grammar_size=100_000,
            verbose_errors=False,
        )
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def matcher(self, text: str, earlier: Iterable[int] = ()) -> Matcher:
        """A matcher at the beginning of ``text`` (:attr:`Submit.structure`), or after the ``earlier`` tokens of it.

        Raises:
            RequestError: no grammar can be made of it, or the earlier tokens do not follow it.
        """
        try:
            form = structure.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RequestError(f"the structure cannot be read: {error}; check the schema", param=_PARAM) from None
        matcher = Matcher(self, form, text)
        for token in earlier:
            if not matcher.allows(token):
                raise RequestError("the earlier tokens do not follow the schema; send the request again", param=_PARAM)
            matcher.accept(token)
        return matcher

    def parser(self, key: str, form: Structure) -> Any:
        """A fresh parser of the grammar. Raises RequestError: it cannot be compiled within bounds."""
        kept = self._compiled.get(key)
        if kept is None:
            kept = llguidance.LLMatcher(self.tokenizer, _grammar(form), limits=self._limits, log_level=0)
            if kept.is_error():
                raise RequestError(
                    f"no grammar can be made of the schema: {_first_line(kept.get_error())}; make it simpler",
                    param=_PARAM,
                )
            self._compiled[key] = kept
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return kept.deep_copy()

    def straddling(self, watch: Watch) -> list[int]:
        """The tokens that must not come while this text is watched."""
        return [token for token, piece in self._straddling if watch.straddles(piece)]


class Matcher:
    """Where one request's text stands in its grammar. One thread at a time."""

    def __init__(self, grammars: Grammars, form: Structure, key: str) -> None:
        self._grammars = grammars
        self._form = form
        self._key = key
        self._parser: Any = grammars.parser(key, form)  # compiled even while only watched for: it must be possible
        self._watch: Watch | None = None  # while no call has begun, in a text that may hold some
        if isinstance(form, Calls) and not form.required:
            self._watch = Watch([function.name for function in form.functions])
        self._scanner = Scanner()
        self._plan: list[int] | None = None  # the end that is being followed
        self._check_at: int | None = None

    @property
    def free(self) -> bool:
        """Whether anything may come now: no call has begun, in a text that may hold some."""
        return self._watch is not None

    @property
    def finished(self) -> bool:
        """The text is whole, and nothing may follow it: stop without sampling."""
        whole = self._plan == [] and bool(self._parser.is_accepting())
        return self._watch is None and (whole or bool(self._parser.is_stopped()))

    @property
    def complete(self) -> bool:
        """The text may end here; more may follow."""
        return self._watch is not None or bool(self._parser.is_accepting())

    def allows(self, token: int) -> bool:
        if not 0 <= token < self._grammars.width:
            return False
        if self._watch is not None:
            return not self._watch.straddles(self._grammars.vocabulary.piece(token))
        return bool(self._parser.validate_tokens([token]) == 1)

    def mask(self) -> npt.NDArray[np.bool_]:
        """For each token of the vocabulary, whether it may come next.

        Raises:
            RequestError: the grammar needs more work for one token than is granted.
        """
        if self._watch is not None:
            mask = np.ones(self._grammars.width, np.bool_)
            mask[self._grammars.straddling(self._watch)] = False
            return mask
        return bits(self._parser, self._grammars.width)

    def masked(self, logits: Logits, remaining: int) -> Logits:
        """A copy of a row of logits, -inf where a token may not come now that ``remaining`` are left.

        Raises as :meth:`mask`.
        """
        if not self.closing(remaining):
            return np.where(self.mask(), logits, np.float32(-np.inf))
        only = self._plan[:1] if self._plan else self._grammars.ends
        row = np.full_like(logits, -np.inf)
        row[only] = np.maximum(logits[only], np.float32(-1e30))
        return row

    def accept(self, token: int) -> None:
        """The token was taken.

        Raises:
            RequestError: it was not allowed, or the grammar grew past its limits.
        """
        piece = self._grammars.vocabulary.piece(token)
        if self._plan:
            self._plan = self._plan[1:] if self._plan[0] == token else None
        if self._watch is not None:
            if (began := self._watch.feed(piece)) is not None:
                self._begin(began)
            return
        if not self._parser.consume_token(token):
            raise _stuck(self._parser)
        self._scanner.feed(piece)

    def closing(self, remaining: int) -> bool:
        """Whether the text must be brought to its end now that ``remaining`` tokens are left.

        From then on :meth:`masked` admits one token at each step, the next one of the shortest end that was found.
        """
        if self._watch is not None or (self._check_at is not None and remaining > self._check_at):
            return False
        if self._plan is not None:
            return True
        plan = self._grammars.closing.plan(self._parser, self._scanner, limit=remaining)
        step = 4 + self._form.step // 3  # tokens, from characters
        if plan is None:
            self._check_at = remaining - 16
        elif remaining - len(plan) > step:
            # One token lengthens the end by a step at most, and rarely by as much.
            self._check_at = remaining - max(1, 2 * (remaining - len(plan) - step) // step)
        else:
            self._check_at, self._plan = None, plan
        return self._plan is not None

    def forced(self) -> list[int]:
        """Tokens that can only come next, in this order: a draft that costs no guess."""
        return [] if self._watch is not None else list(self._parser.compute_ff_tokens())

    def _begin(self, name: str) -> None:
        """Hold the text to its grammar from here: behind the mark, or (with a name) before a bare call's arguments."""
        assert isinstance(self._form, Calls)  # noqa: S101 - only such a text is watched
        self._watch = None
        if name:
            (function,) = (one for one in self._form.functions if one.name == name)
            rest = Arguments(parameters=function.parameters)
            self._parser = self._grammars.parser(structure.encode(rest), rest)
            return
        tokens = self._grammars.tokenizer.tokenize_bytes(OPENING.encode())
        if not self._parser.consume_tokens(tokens):
            raise EngineError("the grammar of tool calls does not begin with a call; send the request without tools")


def bits(parser: Any, width: int) -> npt.NDArray[np.bool_]:
    """The library's mask, a byte a token. Raises RequestError: over its limits."""
    packed = np.frombuffer(parser.compute_bitmask(), np.uint8)
    if parser.is_error():
        raise _stuck(parser)
    return np.unpackbits(packed, count=width, bitorder="little").view(np.bool_)


def _stuck(parser: Any) -> RequestError:
    reason = _first_line(parser.get_error())
    return RequestError(f"the schema's grammar cannot go on ({reason}); make the schema simpler", param=_PARAM)


def _grammar(form: Structure) -> str:
    match form:
        case Document(schema=schema):
            made: str = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_LAYOUT)
        case Arguments(parameters=parameters):
            loose = {**parameters, "x-guidance": _LOOSE}
            lark = 'start: SPACE arguments SPACE "}" (SPACE "```")?\nSPACE: /[ \\n]{0,8}/\narguments: %json '
            made = llguidance.LLMatcher.grammar_from_lark(lark + json.dumps(loose))
        case Calls():
            made = llguidance.LLMatcher.grammar_from_lark(_calls(form))
    return made


def _calls(form: Calls) -> str:
    """Lark: one call, or several with a line between; ``x-guidance`` is how a schema inside is told its layout."""
    rules = []
    for number, function in enumerate(form.functions):
        # References inside the parameters point at the root of what is compiled: the call.
        arguments = {word: value for word, value in function.parameters.items() if word != "$defs"}
        call = {
            "x-guidance": _LAYOUT,
            "type": "object",
            "properties": {"name": {"const": function.name}, "arguments": arguments},
            "required": ["name", "arguments"],
            "additionalProperties": False,
            "$defs": function.parameters.get("$defs", {}),
        }
        rules.append(f"call_{number}: %json {json.dumps(call)}")
    names = " | ".join(f"call_{number}" for number in range(len(rules)))
    again = f' ("\\n{OPENING}\\n" one "\\n{CLOSING}")*' if form.many else ""
    return "\n".join([f'start: "{OPENING}\\n" one "\\n{CLOSING}"{again}', f"one: {names}", *rules])


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason is given")[:200]

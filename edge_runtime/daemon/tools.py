"""Calls of tools: what a request offers and demands, and the calls in what the model writes. Pure.

A call is written as ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` with line breaks between, whatever the
model: some were trained to, and the others are told and cannot do otherwise once they begin.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge_runtime import openai_protocol
from edge_runtime.engine import structure
from edge_runtime.engine.schemas import measure, narrow
from edge_runtime.engine.structure import BARE, CLOSING, OPENING
from edge_runtime.errors import RequestError

_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_BARE = re.compile(BARE)
_MAYBE_BARE = re.compile(r"\s*(?:`{0,2}|```(?:j(?:s(?:on?)?)?)?\s*(?:\{[^}]*)?|\{[^}]*)")
_MOST_BARE = 256  # characters that are held back for one
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:')


@dataclass(frozen=True, slots=True)
class Offer:
    """``tools`` as a chat template takes them; ``structure`` as the engine does."""

    tools: list[dict[str, Any]]
    structure: str

    @property
    def size(self) -> int:
        """Bytes that they add to a prompt, about."""
        return len(msgspec.json.encode(self.tools))


def read_offer(body: openai_protocol.ChatRequest, limit: int) -> Offer | None:
    """What the request offers; None: no tools, or none that may be called.

    Raises:
        RequestError: a name comes twice or is unknown, a schema of parameters is refused, or there is a
            ``response_format`` as well.
    """
    tools, choice = body.tools or [], body.tool_choice
    if not tools and choice not in (None, "none", "auto"):
        raise RequestError("tool_choice asks for a call, and there are no tools; add tools", param="tool_choice")
    if not tools or choice == "none":
        return None
    if not isinstance(body.response_format, openai_protocol.TextFormat | None) or body.json_schema or body.guided_json:
        raise RequestError(
            'a response_format cannot be kept beside tools; leave one out, or set tool_choice to "none"',
            param="response_format",
        )
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise RequestError("two tools have the same name; give each its own", param="tools")
    measure([tool.function.parameters for tool in tools], "tools")
    called = names
    if isinstance(choice, openai_protocol.NamedTool):
        if choice.function.name not in names:
            raise RequestError(
                f"tool_choice names {choice.function.name[:80]!r}, which is not in tools", param="tool_choice"
            )
        called = [choice.function.name]
    documents = {
        tool.function.name: _parameters(tool.function, f"tools[{number}].function.parameters", limit)
        for number, tool in enumerate(tools)
    }
    demanded = choice not in (None, "auto")
    form = structure.Calls(
        functions=[structure.Function(name=name, parameters=documents[name].schema) for name in called],
        required=demanded,
        many=not demanded and body.parallel_tool_calls is not False,
        step=max(documents[name].step for name in called),
    )
    return Offer([_shown(tool.function) for tool in tools], structure.encode(form))


def _parameters(function: openai_protocol.Function, param: str, limit: int) -> structure.Document:
    given = function.parameters
    document = narrow(_NO_ARGUMENTS if given is None else given or {"type": "object"}, tokens=limit, param=param)
    if document.schema.get("type") != "object" and "$ref" not in document.schema:
        raise RequestError(f"{param} must describe one object; set its type to object", param=param)
    return document


def _shown(function: openai_protocol.Function) -> dict[str, Any]:
    """In OpenAI's form, which templates print as JSON."""
    shown: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        shown["description"] = function.description
    shown["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": shown}


# ---- reading what was written --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """Text beside the calls."""

    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """Call number ``index`` begins."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Argument:
    """The next piece of a call's arguments, as JSON text."""

    index: int
    text: str


Piece = Said | Begun | Argument


class CallReader:
    """Cuts text that comes in pieces of any size into what is said and what is called (sans-io).

    What could be the beginning of a call is held back, and so is white space before one. A call of one of ``names``
    may come without marks, at the beginning (:mod:`edge_runtime.engine.watching`); what follows it is dropped.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self.calls = 0
        self._names = names
        self._bare = bool(names)
        self._held = ""
        self._state: Callable[[], Iterator[Piece]] = self._read_text
        self._after = self._read_tail  # what is read behind arguments
        self._depth = 0
        self._inside = self._escaped = False

    def feed(self, text: str) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        while True:
            before, state = self._held, self._state
            pieces += state()
            if self._held == before and self._state == state:
                return pieces

    def finish(self) -> list[Piece]:
        """The text is at its end: what was held back is no call, unless one has begun."""
        if self._state == self._read_text and self._held and (self._held.strip() or not self.calls):
            held, self._held = self._held, ""
            return [Said(held)]
        return []

    def _read_text(self) -> Iterator[Piece]:
        if self._bare:
            found = _BARE.match(self._held)
            if found is not None and found[1] in self._names:
                self._held = self._held[found.end() :]
                yield self._begin(found[1], self._read_nothing)
                return
            if len(self._held) <= _MOST_BARE and found is None and _MAYBE_BARE.fullmatch(self._held):
                return
            self._bare = False
        at = self._held.find(OPENING)
        if at >= 0:
            said, self._held = self._held[:at].rstrip(), self._held[at + len(OPENING) :]
            self._state = self._read_head
        else:
            keep = _overlap(self._held, OPENING)
            end = len(self._held[: len(self._held) - keep].rstrip())
            said, self._held = self._held[:end], self._held[end:]
        if said:
            yield Said(said)

    def _read_head(self) -> Iterator[Piece]:
        found = _HEAD.match(self._held)
        if found is not None:
            self._held = self._held[found.end() :]
            yield self._begin(msgspec.json.decode(f'"{found[1]}"', type=str), self._read_tail)

    def _begin(self, name: str, after: Callable[[], Iterator[Piece]]) -> Piece:
        self._state, self._after = self._read_arguments, after
        self._depth, self._inside, self._escaped = 0, False, False
        self.calls += 1
        return Begun(self.calls - 1, name)

    def _read_arguments(self) -> Iterator[Piece]:
        if self._depth == 0 and not self._inside:
            self._held = self._held.lstrip()
        for at, character in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._inside:
                self._escaped = character == "\\"
                self._inside = character != '"'
            elif character == '"':
                self._inside = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    text, self._held = self._held[: at + 1], self._held[at + 1 :]
                    self._state = self._after
                    yield Argument(self.calls - 1, text)
                    return
        if self._held:
            text, self._held = self._held, ""
            yield Argument(self.calls - 1, text)

    def _read_nothing(self) -> Iterator[Piece]:
        self._held = ""
        yield from ()

    def _read_tail(self) -> Iterator[Piece]:
        at = self._held.find(CLOSING)
        if at >= 0:
            self._held = self._held[at + len(CLOSING) :].lstrip("\n")
            self._state = self._read_text
        yield from ()


def _overlap(text: str, mark: str) -> int:
    """How many of the last characters of ``text`` could begin ``mark``."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)


@dataclass(slots=True)
class Speech:
    """One choice of a chat: pieces of text in, OpenAI's shapes out. No ``reader``: nothing in it is a call.

    ``new_id`` names calls.
    """

    new_id: Callable[[], str]
    reader: CallReader | None = None
    text: str = ""
    calls: list[openai_protocol.ToolCall] = field(default_factory=list)

    def feed(self, text: str, *, last: bool = False) -> list[openai_protocol.Delta]:
        if self.reader is None:
            return [self._take(Said(text))] if text else []
        pieces = self.reader.feed(text)
        return [self._take(piece) for piece in (*pieces, *(self.reader.finish() if last else ()))]

    def _take(self, piece: Piece) -> openai_protocol.Delta:
        match piece:
            case Said(text):
                self.text += text
                return openai_protocol.Delta(content=text)
            case Begun(index, name):
                call = openai_protocol.ToolCall(
                    id=self.new_id(), function=openai_protocol.FunctionCall(name=name, arguments="")
                )
                self.calls.append(call)
                began = openai_protocol.ToolCallDelta(
                    index=index,
                    id=call.id,
                    type="function",
                    function=openai_protocol.FunctionDelta(name=name, arguments=""),
                )
                return openai_protocol.Delta(tool_calls=[began])
            case Argument(index, text):
                call = self.calls[index]
                function = msgspec.structs.replace(call.function, arguments=call.function.arguments + text)
                self.calls[index] = msgspec.structs.replace(call, function=function)
                more = openai_protocol.ToolCallDelta(
                    index=index, function=openai_protocol.FunctionDelta(arguments=text)
                )
                return openai_protocol.Delta(tool_calls=[more])

    @property
    def message(self) -> openai_protocol.AssistantMessage:
        if not self.calls:
            return openai_protocol.AssistantMessage(content=self.text)
        return openai_protocol.AssistantMessage(content=self.text or None, tool_calls=self.calls)

    def reason(self, plain: openai_protocol.FinishReason) -> openai_protocol.FinishReason:
        return "tool_calls" if self.calls and plain == "stop" else plain


def speech(body: openai_protocol.ChatRequest) -> Speech:
    """For one choice of this request; calls are looked for only where tools may be called."""
    names = [] if body.tool_choice == "none" else [tool.function.name for tool in body.tools or ()]
    return Speech(lambda: f"call_{secrets.token_hex(12)}", CallReader(names) if names else None)

"""The engine with its chat template: messages in, tokens out."""

from __future__ import annotations

import asyncio
import math
import os.path
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_runtime.daemon.admission import Bid
from edge_runtime.daemon.children import FILE_TEMPLATE
from edge_runtime.daemon.engine import WAIT_SECONDS, Engine, check_size
from edge_runtime.daemon.pace import Pace
from edge_runtime.engine.messages import Class, Done, Params, Ready, Submit, Token
from edge_runtime.engine.templates import render
from edge_runtime.errors import RequestError
from edge_runtime.openai_protocol import Message
from models.catalog import Chat


class Writer:
    """The model that writes, under its name in the catalogue; ``find`` reads the rules that its entry gives.

    System messages that are in ``public`` are nobody's secret: what the engine remembers of them serves every user.
    """

    def __init__(self, engine: Engine, name: str, find: Callable[[], Chat], public: Sequence[str] = ()) -> None:
        self.engine = engine
        self.name = name
        self._find = find
        self._public = frozenset(public)
        self._rules: tuple[Ready, Chat] | None = None

    async def prepare(
        self,
        messages: Sequence[Message],
        submit: Submit,
        *,
        own: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Submit:
        """``submit`` with the prompt of ``messages``, ready for the engine; ``own``: the system message is ours.

        The catalogue's stop strings are kept beside the caller's; ``ignore_eos`` ignores them as it does end tokens.

        Raises:
            EngineError: no engine within a minute.
            ContextLengthError: the messages are longer than any context.
            RequestError: the template refuses these messages.
        """
        ready, chat = await self._read_rules()
        check_size(ready, [text for message in messages for text in _texts(message)], param="messages")
        prompt = _render(ready, chat, messages, tools=tools)
        first = messages[0]
        is_public = first.role in ("system", "developer") and (own or first.text in self._public)
        params = submit.params
        if not params.ignore_eos:
            params = msgspec.structs.replace(params, stop=[*params.stop, *chat.stop])
        return msgspec.structs.replace(
            submit,
            prompt=prompt,
            params=params,
            # A template that writes the first token itself must not get a second one.
            add_bos=not (ready.bos and prompt.startswith(ready.bos)),
            public=_shared(ready, chat, first, prompt) if is_public else "",
        )

    async def _read_rules(self) -> tuple[Ready, Chat]:
        """The loaded model and its rules; the catalogue is read once for each start of the engine."""
        ready = await self.engine.child.wait_ready(WAIT_SECONDS)
        if self._rules is None or self._rules[0] is not ready:
            self._rules = ready, await asyncio.to_thread(self._find)
        return self._rules


@dataclass(frozen=True, slots=True)
class Pen:
    """The writer in the hand of one user: what knowledge phrases its answers with. The prompts are our own."""

    writer: Writer
    user: str
    priority: Class = "interactive"
    privileged: bool = False
    pace: Callable[[], Pace] | None = None  # of one text

    @property
    def name(self) -> str:
        return self.writer.name

    @property
    def context(self) -> int:
        """Tokens; 0 while the engine is not there."""
        ready = self.writer.engine.ready
        return 0 if ready is None else ready.context

    def count(self, text: str) -> int:
        """Tokens of ``text``, by the ratio that finished requests came to."""
        return math.ceil(len(text.encode()) / self.writer.engine.admission.bytes_per_token)

    async def chat(
        self, messages: Sequence[tuple[str, str]], params: Params, *, seconds: float
    ) -> AsyncGenerator[Token | Done, None]:
        """The next message of a conversation of (role, text), for a caller that waits at most so long.

        Raises:
            BusyError: the queue is full.
            DeadlineError: it would take longer.
            EngineError: the engine is not there.
        """
        bid = Bid(
            user=self.user,
            priority=self.priority,
            privileged=self.privileged,
            prompt_bytes=sum(len(text.encode()) for _, text in messages),
            tokens=params.max_tokens,
            deadline_ms=round(1000 * seconds),
        )
        order = Submit(id="", prompt="", params=params, priority=self.priority, domain=self.user)
        plain = [Message(role=role, content=text) for role, text in messages]  # type: ignore[arg-type]
        with self.writer.engine.admit(bid) as place:
            submit = await self.writer.prepare(plain, order, own=True)
            pace = None if self.pace is None else self.pace()
            async with aclosing(self.writer.engine.generate(submit, place)) as tokens:
                async for step in tokens:
                    if pace is not None:
                        pace.step(step)
                    yield step


def _render(
    ready: Ready,
    chat: Chat,
    messages: Sequence[Message],
    *,
    ask: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    return render(
        ready.template if chat.template == FILE_TEMPLATE else chat.template,
        messages,
        bos=ready.bos,
        eos=ready.eos,
        add_generation_prompt=ask,
        system=chat.system,
        thinking=chat.thinking,
        tools=tools,
    )


def _texts(message: Message) -> list[str]:
    return [message.text, *(call.function.arguments for call in message.tool_calls or ())]


def _shared(ready: Ready, chat: Chat, system: Message, prompt: str) -> str:
    """What ``prompt`` has in common with its system message alone: nothing in it is the user's."""
    try:
        alone = _render(ready, chat, [system], ask=False)
    except RequestError:  # a template that wants a user's turn
        return ""
    return os.path.commonprefix([alone, prompt])  # noqa: RUF071  (of texts, character by character)

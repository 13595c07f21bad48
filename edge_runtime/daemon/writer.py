"""The engine with its chat template: messages in, tokens out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec

from edge_runtime.daemon.children import FILE_TEMPLATE, WAIT_SECONDS, Engine
from edge_runtime.engine.messages import Done, Params, Ready, Token
from edge_runtime.engine.templates import render
from edge_runtime.openai_protocol import Message
from models.catalog import Chat


class Writer:
    """The model that writes, under its name in the catalogue; ``find`` reads the rules that its entry gives."""

    def __init__(self, engine: Engine, name: str, find: Callable[[], Chat]) -> None:
        self.engine = engine
        self.name = name
        self._find = find
        self._rules: tuple[Ready, Chat] | None = None

    async def generate(
        self, messages: Sequence[Message], params: Params, *, on_start: Callable[[], None] | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        """The next assistant message. Raises as :meth:`Engine.generate` and :func:`render`.

        The catalogue's stop strings are kept beside the caller's; ``ignore_eos`` ignores them as it does end tokens.
        """
        ready, chat = await self._read_rules()
        prompt = render(
            ready.template if chat.template == FILE_TEMPLATE else chat.template,
            messages,
            bos=ready.bos,
            eos=ready.eos,
            system=chat.system,
            thinking=chat.thinking,
        )
        if not params.ignore_eos:
            params = msgspec.structs.replace(params, stop=[*params.stop, *chat.stop])
        # A template that writes the first token itself must not get a second one.
        add_bos = not (ready.bos and prompt.startswith(ready.bos))
        tokens = self.engine.generate(prompt, params, add_bos=add_bos, on_start=on_start)
        async with aclosing(tokens):
            async for step in tokens:
                yield step

    async def _read_rules(self) -> tuple[Ready, Chat]:
        """The loaded model and its rules; the catalogue is read once for each start of the engine."""
        ready = await self.engine.child.wait_ready(WAIT_SECONDS)
        if self._rules is None or self._rules[0] is not ready:
            self._rules = ready, await asyncio.to_thread(self._find)
        return self._rules

    async def chat(self, messages: Sequence[tuple[str, str]], params: Params) -> AsyncGenerator[Token | Done, None]:
        """The same for messages given as (role, text)."""
        plain = [Message(role=role, content=text) for role, text in messages]  # type: ignore[arg-type]
        async with aclosing(self.generate(plain, params)) as tokens:
            async for step in tokens:
                yield step

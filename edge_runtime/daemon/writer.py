"""The engine with its chat template: messages in, tokens out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from edge_runtime.daemon.children import WAIT_SECONDS, Engine
from edge_runtime.engine.messages import Done, Params, Token
from edge_runtime.engine.templates import render
from edge_runtime.openai_protocol import Message


class Writer:
    """The model that writes, under its name in the catalogue."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    async def generate(
        self, messages: Sequence[Message], params: Params, *, on_start: Callable[[], None] | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        """The next assistant message. Raises as :meth:`Engine.generate` and :func:`render`."""
        ready = await self.engine.child.wait_ready(WAIT_SECONDS)
        prompt = render(ready.template, messages, bos=ready.bos, eos=ready.eos)
        # A template that writes the first token itself must not get a second one.
        add_bos = not (ready.bos and prompt.startswith(ready.bos))
        tokens = self.engine.generate(prompt, params, add_bos=add_bos, on_start=on_start)
        async with aclosing(tokens):
            async for step in tokens:
                yield step

    async def chat(self, messages: Sequence[tuple[str, str]], params: Params) -> AsyncGenerator[Token | Done, None]:
        """The same for messages given as (role, text)."""
        plain = [Message(role=role, content=text) for role, text in messages]  # type: ignore[arg-type]
        async with aclosing(self.generate(plain, params)) as tokens:
            async for step in tokens:
                yield step

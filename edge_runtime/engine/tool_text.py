"""Tools for a chat template that knows none: a system text that offers them, and calls and results as plain messages.

Works on messages whose special tokens are broken up already: the marks that it writes are its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edge_runtime.engine.structure import CLOSING, OPENING

Plain = dict[str, Any]

_OFFER = (
    "You may call these functions to help with the request:\n{tools}\n\n"
    "To call one, answer with its name and arguments as JSON between marks, and with nothing else:\n"
    '{opening}\n{{"name": "FUNCTION", "arguments": {{"ARGUMENT": "VALUE"}}}}\n{closing}\n'
    "Where no function helps, answer in plain words."
)


def is_known(template: str | None) -> bool:
    """Whether a template takes tools, and writes calls as our grammar does."""
    return template is not None and "tools" in template and "tool_calls" in template and OPENING in template


def as_text(messages: Sequence[Plain], tools: Sequence[Any], *, system: bool) -> list[Plain]:
    """``messages`` with no tool in them but in text; ``system`` False: no system message can hold the offer."""
    plain: list[Plain] = []
    for message in messages:
        if message["role"] == "tool":
            said = f"<tool_response>\n{message['content']}\n</tool_response>"
            if plain and plain[-1].get("results"):
                plain[-1]["content"] += f"\n{said}"  # many templates want the roles to alternate
            else:
                plain.append({"role": "user", "content": said, "results": True})
        elif calls := message.get("tool_calls"):
            written = [f"{OPENING}\n{json.dumps(call['function'], ensure_ascii=False)}\n{CLOSING}" for call in calls]
            plain.append({"role": message["role"], "content": "\n".join(filter(None, [message["content"], *written]))})
        else:
            plain.append(dict(message))
    for message in plain:
        message.pop("results", None)
    return _offered(plain, tools, system=system) if tools else plain


def _offered(plain: list[Plain], tools: Sequence[Any], *, system: bool) -> list[Plain]:
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    text = _OFFER.format(tools=listed, opening=OPENING, closing=CLOSING)
    role = "system" if system else "user"
    at = next((index for index, message in enumerate(plain) if message["role"] == role), None)
    if at is None or (system and at > 0):
        return [{"role": role, "content": text}, *plain]
    first = plain[at]
    together = [first["content"], text] if system else [text, first["content"]]
    return [*plain[:at], {**first, "content": "\n\n".join(filter(None, together))}, *plain[at + 1 :]]

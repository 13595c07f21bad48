"""Messages to a prompt, by the chat template inside the model's file (Jinja, as Hugging Face's tokenizers write them).

Templates come from model files, which are not ours: they run in Jinja's immutable sandbox.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_runtime.errors import ModelFileError, RequestError
from edge_runtime.protocol import Message

# For a model whose file has no template, so one that was not trained on any.
_PLAIN = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


# Markers that a vocabulary may hold for the ends of turns: <|im_end|>, <|eot_id|>, <end_of_turn>, </s>, [INST].
_MARKER = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|(?:start|end)_of_turn)>|\[/?INST\]")


class _RefusedTemplateError(TemplateError):
    """A template's own ``raise_exception``."""


def _refuse(message: str) -> NoReturn:
    raise _RefusedTemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def disarm(text: str) -> str:
    """``text`` with a space in each marker, so that no message and no document can end its turn and begin another."""
    return _MARKER.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


@functools.lru_cache(maxsize=4)
def compile_template(source: str) -> Template:
    """
    Raises:
        ModelFileError: the template does not parse.
    """
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    world.filters["tojson"] = _to_json
    world.globals["raise_exception"] = _refuse
    world.globals["strftime_now"] = time.strftime
    try:
        return world.from_string(source)
    except TemplateError as error:
        raise ModelFileError(f"the model's chat template does not parse ({error}); choose another model") from error


def render(messages: Sequence[Message], template: str | None, *, bos: str = "", eos: str = "") -> str:
    """The prompt for the next assistant message.

    Raises:
        RequestError: the template refuses these messages (an order of roles it does not know).
        ModelFileError: the template does not parse.
    """
    compiled = compile_template(template or _PLAIN)
    # "developer" is OpenAI's newer name for "system"; templates know the older one.
    plain = [
        {"role": "system" if item.role == "developer" else item.role, "content": disarm(item.text)}
        | ({"name": item.name} if item.name else {})
        for item in messages
    ]
    try:
        return compiled.render(messages=plain, add_generation_prompt=True, bos_token=bos, eos_token=eos)
    except (TemplateError, TypeError, ValueError) as error:
        raise RequestError(f"the model's chat template refuses these messages: {error}", param="messages") from error

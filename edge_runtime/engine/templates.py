"""Chat templates: messages to the one prompt that a model was trained on. Runs in ``edged``; imports nothing native.

Templates are Jinja from model files, run as Hugging Face runs them, in a sandbox. What people write stays text: special
tokens spelled out in a message are broken up, so that nobody can close a turn or open a system turn from inside one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_runtime.engine import tool_text
from edge_runtime.errors import ModelFileError, RequestError
from edge_runtime.openai_protocol import FunctionCall, Message

# OpenAI's form of ChatML: for a model file that holds no template.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# The zero-width word joiner (U+2060) after the first character: invisible, and no tokenizer's special token holds it.
_JOINER = "\u2060"
_SYSTEM = ("system", "developer")
# Special tokens that are not written <|...|>: of Gemma, Llama 2, Mistral, Qwen, SmolLM and BERT.
_NAMES = (
    "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<mask>",
    "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]",
    "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<jupyter_start>", "<jupyter_text>",
    "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<issue_start>", "<issue_comment>", "<issue_closed>",
    "<empty_output>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>",
)  # fmt: skip
_UNUSED = r"<unused\d+>|<\uff5c"


def render(
    template: str | None,
    messages: Sequence[Message],
    *,
    bos: str,
    eos: str,
    add_generation_prompt: bool = True,
    system: bool = True,
    thinking: bool | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    clock: Callable[[], datetime] = datetime.now,
) -> str:
    """The prompt of ``messages``; ``template`` None or empty means :data:`CHATML`.

    ``thinking`` sets ``enable_thinking`` for the templates that know it. ``developer`` messages are rendered as
    ``system``, for no template knows that role yet; ``system`` False: the template does not know that one either, so
    its text goes before the first user message (:func:`fold_system`).

    ``tools`` (OpenAI's form) and the calls in ``messages`` go to a template that writes calls as our grammar does;
    for any other they become text (:mod:`edge_runtime.engine.tool_text`).

    Raises:
        RequestError: the template refuses these messages (many insist on the order of roles), or cannot be run.
    """
    modes = {} if thinking is None else {"enable_thinking": thinking}
    known = messages if system else fold_system(messages)
    try:
        special = _special(bos, eos)
        plain = [_plain(message, special, number) for number, message in enumerate(known)]
        offered: list[Any] = [_kept(tool, special) for tool in tools]
        if not tool_text.is_known(template):
            plain, offered = tool_text.as_text(plain, offered, system=system), []
        return _compiled(template or CHATML).render(
            messages=plain,
            bos_token=bos,
            eos_token=eos,
            add_generation_prompt=add_generation_prompt,
            tools=offered or None,
            documents=None,
            strftime_now=lambda form: clock().strftime(form),
            **modes,
        )
    except (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise RequestError(
            f"the model's chat template refuses these messages: {error}; check the roles and their order",
            param="messages",
        ) from error


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """``messages`` without system and developer ones: their texts stand before that of the first user message, with an
    empty line between; where no user speaks, they become one user message at the beginning."""
    said = [message.text for message in messages if message.role in _SYSTEM]
    rest = [message for message in messages if message.role not in _SYSTEM]
    if not said:
        return rest
    at = next((index for index, message in enumerate(rest) if message.role == "user"), None)
    if at is None:
        return [Message(role="user", content="\n\n".join(said)), *rest]
    first = rest[at]
    return [
        *rest[:at],
        Message(role="user", content="\n\n".join([*said, first.text]), name=first.name),
        *rest[at + 1 :],
    ]


def check(template: str) -> None:
    """Raises ModelFileError: ``template`` is no Jinja text; the message says which line."""
    try:
        _compiled(template)
    except jinja2.TemplateSyntaxError as error:
        raise ModelFileError(f"line {error.lineno} is not Jinja: {error.message}; correct it") from error


def neutralise(text: str, *, bos: str = "", eos: str = "") -> str:
    """``text`` with a word joiner inside each special token that it spells, so that it stays text."""
    return _special(bos, eos).sub(lambda found: found[0][0] + _JOINER + found[0][1:], text)


@functools.lru_cache(maxsize=16)
def _special(bos: str, eos: str) -> re.Pattern[str]:
    names = sorted({*_NAMES, *filter(None, (bos, eos))}, key=len, reverse=True)
    # Every "<|" is broken, whatever follows: the rest may come from the template or from the next message.
    return re.compile("|".join([r"<\|", _UNUSED, *map(re.escape, names)]))


def _plain(message: Message, special: re.Pattern[str], number: int) -> dict[str, Any]:
    role = "system" if message.role in _SYSTEM else message.role
    plain: dict[str, Any] = {"role": role, "content": _kept(message.text, special)}
    if message.name is not None:
        plain["name"] = _kept(message.name, special)
    if message.tool_calls:
        plain["tool_calls"] = [
            {"type": "function", "function": _kept(_call(call.function, number), special)}
            for call in message.tool_calls
        ]
    return plain


def _call(function: FunctionCall, number: int) -> dict[str, Any]:
    """Templates print the arguments as JSON themselves."""
    try:
        return {"name": function.name, "arguments": json.loads(function.arguments or "{}")}
    except (ValueError, RecursionError):
        raise RequestError(
            f"messages[{number}].tool_calls holds arguments that are no JSON; send back what the model called with",
            param=f"messages[{number}].tool_calls",
        ) from None


def _kept(value: Any, special: re.Pattern[str]) -> Any:
    """The value with every special token that a string of it spells broken up. As deep as Python's own JSON goes."""
    match value:
        case str():
            return special.sub(lambda found: found[0][0] + _JOINER + found[0][1:], value)
        case Mapping():
            return {_kept(key, special): _kept(item, special) for key, item in value.items()}
        case list():
            return [_kept(item, special) for item in value]
        case _:
            return value


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(template)


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as Hugging Face writes it: Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)

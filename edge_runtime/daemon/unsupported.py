"""Fields that other servers' clients send, that would change the output, and that this version cannot honour.

Each is refused by its name. A value that asks for nothing passes, and so does every field that changes no output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edge_runtime.errors import RequestError

Table = Mapping[str, tuple[Sequence[Any], str]]
ANY: tuple[Any, ...] = ()  # no value of the field asks for nothing, but null
_TEXT_ONLY = "only text comes in and goes out; leave it out"
_FREE = "the output can be held to a JSON Schema alone; use response_format"
_OLD_TOOLS = "leave it out, and use tools, tool_choice and tool_calls"
_CHAT_TOOLS = "tools belong to a chat; use /v1/chat/completions"
_NO_SAMPLER = "this sampler is not there; leave it out, and use temperature, top_p, top_k and min_p"
_NO_PENALTY = "leave it out, and use frequency_penalty and presence_penalty"

# Name -> the values that ask for nothing, and what to do instead.
_SHARED: Table = {
    # OpenAI
    "functions": ([[]], _OLD_TOOLS),
    "function_call": (["none", "auto"], _OLD_TOOLS),
    "modalities": ([["text"], []], _TEXT_ONLY),
    "audio": (ANY, _TEXT_ONLY),
    "prediction": (ANY, "predicted outputs are not supported; leave it out"),
    "web_search_options": (ANY, "this box has no network and searches nothing there; leave it out"),
    "reasoning_effort": (ANY, "the writer does not reason apart from its answer; leave it out"),
    "verbosity": (ANY, "say in the prompt how long the answer should be, and leave it out"),
    "best_of": ([1], "one text is written for each request; leave it out"),
    "suffix": ([""], "text cannot be inserted before a suffix; leave it out"),
    # llama-server's and vLLM's
    "grammar": ([""], _FREE),
    "guided_regex": (ANY, _FREE),
    "guided_choice": (ANY, _FREE),
    "guided_grammar": (ANY, _FREE),
    "structured_outputs": (ANY, _FREE),
    "n_probs": ([0], "use logprobs"),
    "n_predict": ([-1], "use max_tokens"),
    "min_tokens": ([0], "leave it out"),
    "mirostat": ([0], _NO_SAMPLER),
    "mirostat_tau": (ANY, _NO_SAMPLER),
    "mirostat_eta": (ANY, _NO_SAMPLER),
    "typical_p": ([1], _NO_SAMPLER),
    "xtc_probability": ([0], _NO_SAMPLER),
    "dynatemp_range": ([0], _NO_SAMPLER),
    "samplers": ([[]], _NO_SAMPLER),
    "use_beam_search": ([False], _NO_SAMPLER),
    "repeat_penalty": ([1], _NO_PENALTY),
    "repetition_penalty": ([1], _NO_PENALTY),
    "length_penalty": ([1], _NO_PENALTY),
    "dry_multiplier": ([0], _NO_PENALTY),
    "stop_token_ids": ([[]], "use stop"),
    "bad_words": ([[]], "use logit_bias"),
    "lora": ([[]], "name an adapter that was added with edge.adapter"),
    "chat_template": ([""], "the model's own template is used; leave it out"),
    "chat_template_kwargs": ([{}], "the model's own template is used as it is; leave it out"),
}
CHAT = {**_SHARED, "echo": ([False], "a chat does not echo; use /v1/completions")}
COMPLETION = {
    **_SHARED,
    "max_completion_tokens": (ANY, "use max_tokens"),
    "top_logprobs": (ANY, "use logprobs: NUMBER"),
    "tools": ([[]], _CHAT_TOOLS),
    "tool_choice": (["none", "auto"], _CHAT_TOOLS),
}
_MESSAGE: Table = {
    "function_call": (ANY, _OLD_TOOLS),
    "audio": (ANY, _TEXT_ONLY),
}

_Fields = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(_Fields)
_messages = msgspec.json.Decoder(list[_Fields])


def refuse(raw: bytes, table: Table) -> None:
    """Look through a body that has its type already.

    Raises:
        RequestError: a field of ``table``, or one of a message, asks for what is not there; ``param`` names it.
    """
    try:
        fields = _fields.decode(raw)
        _look(fields, table, "")
        if table is CHAT and "messages" in fields:
            for number, message in enumerate(_messages.decode(fields["messages"])):
                _look(message, _MESSAGE, f"messages[{number}].")
    except RecursionError:
        raise RequestError("the body is nested too deeply to be read") from None


def _look(fields: _Fields, table: Table, place: str) -> None:
    for name, (idle, advice) in table.items():
        if name in fields and not _asks_for_nothing(fields[name], idle):
            raise RequestError(f"{place}{name} is not supported: {advice}", param=f"{place}{name}")


def _asks_for_nothing(raw: msgspec.Raw, idle: Sequence[Any]) -> bool:
    value = msgspec.json.decode(raw)
    return value is None or value in idle

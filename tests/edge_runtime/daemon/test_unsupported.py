"""What cannot be honoured is refused by its name; what asks for nothing passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_runtime.daemon.unsupported import CHAT, COMPLETION, Table, refuse
from edge_runtime.errors import RequestError

TABLES = [CHAT, COMPLETION]


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in TABLES for name in table])
def test_every_field_is_refused_by_name_unless_it_asks_for_nothing(table: Table, name: str) -> None:
    for idle in (None, *table[name][0]):
        refuse(json.dumps({name: idle}).encode(), table)
    for value in ("much", {"a": 1}, [7], 3.5):
        with pytest.raises(RequestError, match=f"^{name} is not supported: ") as caught:
            refuse(json.dumps({name: value}).encode(), table)
        assert caught.value.param == name


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "function_call": {"name": "x"}}, "messages[1].function_call"),
        ({"role": "assistant", "audio": {"id": "x"}}, "messages[1].audio"),
    ],
)
def test_a_message_with_a_tool_is_refused_with_its_place(message: dict[str, Any], param: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x"}, message]}).encode()
    with pytest.raises(RequestError) as caught:
        refuse(body, CHAT)
    assert caught.value.param == param


def test_a_value_that_is_nested_without_end_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RequestError, match="nested too deeply"):
        refuse(b'{"tools": ' + deep + b"}", CHAT)

"""Schemas and tools through the whole daemon, with the official ``openai`` package: what is promised is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema
import openai
import pytest

from benchmarks.hostile_schemas import hostile
from benchmarks.schemas import varied
from models.store import Store
from tests.box import Box, running
from tests.conftest import SMALL_WRITER

CHAT = "/v1/chat/completions"
PUMP = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["on", "level"],
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "set_pump", "description": "Switches the pump", "parameters": PUMP}},
    {"type": "function", "function": {"name": "stop_all"}},
]
ASKED: list[Any] = [{"role": "user", "content": "Switch the pump on at level 3."}]


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


@pytest.fixture
def client(box: Box) -> Iterator[openai.OpenAI]:
    transport = httpx2.HTTPTransport(uds=str(box.socket))
    http = httpx2.Client(transport=transport)
    with openai.OpenAI(base_url="http://edged/v1", api_key="none", http_client=http, max_retries=0) as connected:
        yield connected


@pytest.mark.parametrize("name", ["open_lists-1", "recursive-1", "together-2"])
def test_an_answer_follows_its_schema_and_is_whole(client: openai.OpenAI, name: str) -> None:
    case = next(case for case in varied() if case.name == name)
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": case.schema, "strict": True}}
    messages: Any = [{"role": "user", "content": case.prompt}]
    reply = client.chat.completions.create(
        model=SMALL_WRITER, messages=messages, max_tokens=100, response_format=form, temperature=1.2, n=2
    )
    for choice in reply.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), case.schema)


def test_a_completion_takes_the_fields_of_other_servers(box: Box) -> None:
    for field in ("json_schema", "guided_json"):
        body = {"model": "default", "prompt": "The pump:", "max_tokens": 40, field: PUMP}
        (choice,) = box.post("/v1/completions", body).json["choices"]
        jsonschema.validate(json.loads(choice["text"]), PUMP)


def test_every_hostile_schema_is_refused_and_the_engine_is_the_one_it_was(box: Box) -> None:
    before = box.child("engine")
    for case in hostile():
        form = f'{{"type": "json_schema", "json_schema": {{"name": "x", "schema": {case.schema}}}}}'
        body = f'{{"model": "default", "messages": [{{"role": "user", "content": "x"}}], "response_format": {form}}}'
        reply = box.post(CHAT, body.encode())
        assert reply.status == 400, case.name
        assert reply.error["message"]
    assert box.chat().status == 200
    assert box.child("engine") == before


def test_a_demanded_call_comes_with_arguments_that_fit(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "set_pump"}}
    reply = client.chat.completions.create(
        model=SMALL_WRITER, messages=ASKED, tools=TOOLS, tool_choice=named, max_tokens=80
    )
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert (call.type, call.function.name) == ("function", "set_pump")
    jsonschema.validate(json.loads(call.function.arguments), PUMP)
    history: Any = [
        *ASKED,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "done"},
    ]
    again = client.chat.completions.create(model=SMALL_WRITER, messages=history, tools=TOOLS, max_tokens=8)
    assert again.choices[0].finish_reason in {"stop", "length", "tool_calls"}


def test_a_streamed_call_puts_together_what_the_whole_one_says(client: openai.OpenAI) -> None:
    asked: Any = {"model": SMALL_WRITER, "messages": ASKED, "tools": TOOLS, "tool_choice": "required", "max_tokens": 80}
    whole = client.chat.completions.create(**asked, temperature=0)
    (call,) = whole.choices[0].message.tool_calls or []
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, temperature=0, stream=True)]
    deltas = [delta for chunk in chunks for delta in chunk.delta.tool_calls or []]
    assert {delta.index for delta in deltas} == {0}
    assert (deltas[0].type, deltas[0].function.name) == ("function", call.function.name)
    assert deltas[0].id
    assert "".join(delta.function.arguments or "" for delta in deltas) == call.function.arguments
    assert chunks[-1].finish_reason == "tool_calls"
    assert not any(chunk.delta.content for chunk in chunks)

"""The fields that ask for a structure, of OpenAI and of others, mean one thing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from benchmarks.hostile_schemas import hostile
from benchmarks.schemas import Case
from edge_runtime.daemon.call import decode
from edge_runtime.daemon.structures import read_structure
from edge_runtime.daemon.unsupported import CHAT, COMPLETION, refuse
from edge_runtime.engine import structure
from edge_runtime.engine.structure import Document
from edge_runtime.errors import RequestError
from edge_runtime.openai_protocol import ChatRequest, CompletionRequest

SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
HELD = {**SCHEMA, "additionalProperties": False}


def _completion(**fields: Any) -> CompletionRequest:
    return msgspec.convert({"model": "default", "prompt": "x", **fields}, CompletionRequest)


def _form(**fields: Any) -> Document:
    form = structure.decode(read_structure(_completion(**fields), 64))
    assert isinstance(form, Document)
    return form


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"json_schema": SCHEMA},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
    ],
)
def test_every_way_to_send_a_schema_is_the_same(fields: dict[str, Any]) -> None:
    assert _form(**fields).schema == HELD


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": {"type": "text"}}, {"response_format": None}, {"json_schema": {}}]
)
def test_text_is_free(fields: dict[str, Any]) -> None:
    assert read_structure(_completion(**fields), 64) == ""


def test_any_object_is_an_object() -> None:
    assert _form(response_format={"type": "json_object"}).schema["type"] == "object"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": False}}}, "response_format"),
        ({"json_schema": 7}, "json_schema"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[" * 100_000}, "guided_json"),
        ({"json_schema": SCHEMA, "guided_json": SCHEMA}, "guided_json"),
    ],
)
def test_what_is_no_schema_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_structure(_completion(**fields), 64)
    assert caught.value.param == param


@pytest.mark.parametrize("case", list(hostile()), ids=lambda case: case.name)
def test_a_body_with_a_hostile_schema_is_refused_on_the_way_of_every_body(case: Case) -> None:
    form = f'{{"type": "json_schema", "json_schema": {{"name": "x", "schema": {case.schema}}}}}'
    body = f'{{"model": "m", "messages": [{{"role": "user", "content": "x"}}], "response_format": {form}}}'
    with pytest.raises(RequestError) as caught:
        read_structure(decode(body.encode(), ChatRequest), 512)
    assert caught.value.status == 400


def test_the_fields_are_no_longer_refused_by_name() -> None:
    body = json.dumps(
        {"response_format": {"type": "json_object"}, "json_schema": SCHEMA, "guided_json": SCHEMA}
    ).encode()
    refuse(body, CHAT)
    refuse(body, COMPLETION)

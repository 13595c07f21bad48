"""Schemas are read within bounds: what a client may send is narrowed, what is hostile is refused by its place."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hostile_schemas import hostile
from benchmarks.schemas import Case, varied
from edge_runtime.engine.schemas import narrow
from edge_runtime.engine.structure import Document, decode, encode
from edge_runtime.errors import RequestError

VARIED = list(varied())
HOSTILE = list(hostile())


def test_there_are_as_many_as_the_benchmark_says_and_all_are_json_schemas() -> None:
    assert len({case.name for case in VARIED}) == 200
    assert len({case.name for case in HOSTILE}) == 50
    for case in VARIED:
        jsonschema.Draft202012Validator.check_schema(case.schema)


def test_every_schema_that_a_client_would_send_is_taken() -> None:
    for case in VARIED:
        document = narrow(case.schema, tokens=512)
        assert decode(encode(document)) == document


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_every_hostile_schema_is_refused(case: Case) -> None:
    try:
        schema = msgspec.json.decode(case.schema)
    except RecursionError:
        return  # the daemon refuses such a body before it is one
    with pytest.raises(RequestError) as caught:
        narrow(schema, tokens=512, param="response_format")
    assert caught.value.param == "response_format"
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, "#/properties/a/type is none of"),
        ({"type": "object", "if": {}}, "#/if is a keyword that cannot be enforced"),
        ({"type": "object", "minimun": 3}, "#/minimun is a keyword"),
        ({"type": "string", "format": "iban"}, "#/format cannot be enforced; use one of date-time"),
        (
            {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 3}]},
            "#/oneOf has alternatives that may overlap",
        ),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "#/pattern is said twice"),
        ({"type": "object", "minProperties": 2}, "#/minProperties over 1 cannot be enforced"),
        ({"type": "integer", "minimum": True}, "#/minimum must be a number"),
        ({"type": "integer", "multipleOf": 99991}, "#/multipleOf has more digits"),
        ({"type": "array", "minItems": -1}, "#/minItems must be a whole number"),
        ({"enum": []}, "#/enum must be a list"),
        ({"anyOf": {}}, "#/anyOf must be a list"),
        ({"properties": []}, "#/properties must be an object"),
        ({"type": "array", "items": False, "minItems": 1}, "wants 1 items, and admits 0"),
        ({"type": "string", "minLength": 9000}, "raise max_tokens"),
        ({"a": float("inf")}, "a number beyond"),
    ],
)
def test_a_refusal_names_the_place_and_what_to_do(schema: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        narrow(schema, tokens=512)
    assert said in caught.value.message


def test_annotations_are_dropped_and_what_is_endless_gets_an_end() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Person",
        "type": "object",
        "properties": {"name": {"type": "string", "description": "in full"}, "tags": {"type": "array", "items": {}}},
        "required": ["name"],
    }
    assert narrow(schema, tokens=100).schema == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 100},
            "tags": {"type": "array", "minItems": 0, "maxItems": 64, "items": {}},
        },
        "required": ["name"],
        "additionalProperties": False,
    }


def test_keywords_beside_a_reference_or_a_choice_hold_as_well() -> None:
    schema = {
        "$defs": {"id": {"type": "integer", "minimum": 3}},
        "anyOf": [{"$ref": "#/$defs/id"}, {"type": "integer", "maximum": 2}],
        "maximum": 9,
    }
    assert narrow(schema, tokens=99).schema == {
        "anyOf": [
            {"type": "integer", "minimum": 3, "maximum": 9},
            {"type": "integer", "minimum": -(10**9), "maximum": 2},
        ]
    }


def test_a_schema_that_grows_when_it_is_merged_is_refused_while_it_is_small() -> None:
    """What doubles thirty times is refused at once, or not at all: counted in work, not in seconds."""
    wide: dict[str, Any] = {
        f"d{n}": {
            "anyOf": [{"$ref": f"#/$defs/d{n + 1}", "minLength": n}, {"$ref": f"#/$defs/d{n + 1}", "maxLength": 99 - n}]
        }
        for n in range(30)
    }
    with pytest.raises(RequestError, match="larger than 1000 parts"):
        narrow({"$defs": {**wide, "d30": {"type": "string"}}, "$ref": "#/$defs/d0"}, tokens=512)


_WORDS = (
    "type properties required items prefixItems anyOf oneOf allOf enum const $ref $defs pattern format minimum maximum "
    "multipleOf minLength maxLength minItems maxItems minProperties maxProperties additionalProperties "
    "patternProperties exclusiveMinimum uniqueItems not a b"
)
_KINDS = ["object", "array", "string", "integer", "number", "#", "#/$defs/a", "#/a", "date", "a{2,3}(", "[a-"]
_LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.sampled_from(_KINDS)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(_WORDS.split()), below, max_size=4),
    max_leaves=25,
)


@given(_SCHEMAS)
def test_whatever_is_sent_is_narrowed_or_refused(schema: Any) -> None:
    try:
        document = narrow(schema, tokens=64)
    except RequestError:
        return
    assert isinstance(document, Document)
    assert decode(encode(document)) == document

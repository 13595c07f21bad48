"""50 JSON Schemas that must be refused: too deep, too large, endless, contradictory, or no schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.schemas import BOOLEAN, NULL, STRING, Case, Schema, listing, record


def _deep(depth: int, wrap: Callable[[Any], Any]) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = wrap(schema)
    return schema


def _text(value: Any) -> str:
    return json.dumps(value)


def _bombs() -> Iterator[tuple[str, str]]:
    """What is too deep, too large, or grows when it is written out."""
    yield "60,000 nested arrays", '{"type": "array", "items": ' * 60_000 + "{}" + "}" * 60_000
    yield "60,000 nested brackets", "[" * 60_000 + "]" * 60_000
    yield "60,000 nested properties", '{"properties": {"a": ' * 60_000 + "{}" + "}}" * 60_000
    yield "60,000 nested groups in a pattern", _text({"type": "string", "pattern": "(" * 60_000 + "a" + ")" * 60_000})
    yield "500 nested anyOf", '{"anyOf": [{"type": "null"}, ' * 500 + "{}" + "]}" * 500
    yield "200 nested objects", _text(_deep(200, lambda part: record({"a": part})))
    yield "100 nested allOf", _text(_deep(100, lambda part: {"allOf": [part]}))
    yield "an enum of 200,000", _text({"enum": [f"value {number}" for number in range(200_000)]})
    yield "a string of a megabyte", _text({"const": "x" * 2**20})
    yield "a key of a megabyte", _text(record({"k" * 2**20: STRING}))
    yield "a pattern of a megabyte", _text({"type": "string", "pattern": "a?" * 2**19})
    yield "100,000 properties", _text(record({f"p{number}": BOOLEAN for number in range(100_000)}))
    yield "100,000 required names", _text({"type": "object", "required": [f"p{number}" for number in range(100_000)]})
    yield "20,000 alternatives", _text({"anyOf": [{"const": number} for number in range(20_000)]})
    definitions = {
        f"d{n}": record({"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}}) for n in range(30)
    }
    yield "a billion laughs", _text({"$defs": {**definitions, "d30": STRING}, "$ref": "#/$defs/d0"})
    arrays = {f"d{n}": listing({"$ref": f"#/$defs/d{n + 1}"}, minItems=10) for n in range(20)}
    yield "10 to the 20th items", _text({"$defs": {**arrays, "d20": NULL}, "$ref": "#/$defs/d0"})
    both: Schema = {}
    for n in range(30):
        pair = [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/b{n + 1}"}]
        both |= {f"a{n}": {"allOf": pair}, f"b{n}": {"allOf": [pair[0], {**pair[1], "maxLength": 99 + n}]}}
    yield "allOf that doubles", _text({"$defs": {**both, "a30": STRING, "b30": STRING}, "$ref": "#/$defs/a0"})
    crossed: Any = {"type": "string"}
    for number in range(12):
        crossed = {"anyOf": [{"minLength": number}, {"maxLength": 100 - number}], "allOf": [crossed]}
    yield "anyOf that multiplies", _text(crossed)


def _repetitions() -> Iterator[tuple[str, Schema]]:
    for name, pattern in (
        ("a repetition of a billion", "a{1000000000}"),
        ("nested repetitions", "((((a{1,100}){1,100}){1,100}){1,100}){1,100}"),
        ("an open repetition of a million", "^(ab|cd){1000000,}$"),
        ("look-ahead", "^(?=.*[a-z])(?=.*[0-9]).{8,}$"),
        ("look-behind", "(?<!a)b"),
        ("a back reference", r"^(a+)\1$"),
        ("a group without an end", "^((a+$"),
        ("many wildcards", ".*a.{1000}" * 10),
    ):
        yield name, {"type": "string", "pattern": pattern}
    yield "a billion items", listing(NULL, minItems=10**9)
    yield "a billion characters", {"type": "string", "minLength": 10**9}
    yield "30,000 items in a short answer", listing(record({"name": STRING}), minItems=30_000)
    yield "a hundred digits", {"type": "integer", "minimum": 10**100}


def _references() -> Iterator[tuple[str, Schema]]:
    for name, reference in (
        ("a reference to the network", "https://example.com/schema.json"),
        ("a reference to a file", "file:///etc/passwd"),
        ("a reference to another document", "other.json#/a"),
        ("a reference to nothing", "#/$defs/absent"),
        ("a reference that is a number", 7),
    ):
        yield name, {"$ref": reference}
    yield "a reference to itself", {"$ref": "#"}
    yield (
        "a circle of references",
        {
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            "$ref": "#/$defs/a",
        },
    )
    yield "a document without an end", {"$defs": {"n": record({"n": {"$ref": "#/$defs/n"}})}, "$ref": "#/$defs/n"}


def _contradictions() -> Iterator[tuple[str, Any]]:
    yield "minimum over maximum", {"type": "integer", "minimum": 5, "maximum": 4}
    yield "no multiple in between", {"type": "integer", "minimum": 1, "maximum": 6, "multipleOf": 7}
    yield "minLength over maxLength", {"type": "string", "minLength": 5, "maxLength": 4}
    yield "required and forbidden", record({"a": STRING}, required=["b"], additionalProperties=False)
    yield "more properties than there are", record({"a": STRING}, minProperties=3, additionalProperties=False)
    yield "a type and another's enum", {"type": "integer", "enum": ["a", "b"]}
    yield "false", False


def _no_schemas() -> Iterator[tuple[str, Any]]:
    yield "a list", [1, 2]
    yield "a string", "object"
    yield "an unknown type", {"type": "strnig"}
    yield "a keyword that nothing enforces", {"type": "object", "not": {"required": ["a"]}}
    yield "unique items", listing(STRING, uniqueItems=True)


def hostile() -> Iterator[Case]:
    """50 schemas that must be refused, as JSON text: some are too deep for Python to write or read."""
    for name, text in _bombs():
        yield Case(name, text)
    for group in (_repetitions, _references, _contradictions, _no_schemas):
        for name, schema in group():
            yield Case(name, _text(schema))

"""JSON Schemas of our own making: 200 varied ones, each with a prompt. The hostile ones are in hostile_schemas.

Nothing is drawn at random: every schema follows from its number, so that two runs ask the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

_THINGS = ("pump", "valve", "sensor", "motor", "boiler", "camera", "router", "filter")
_PEOPLE = ("Ann", "Ben", "Chloé", "Dmitri", "Eun-ji", "Farah", "Gül", "Hana")
_COLOURS = ("red", "green", "blue", "white", "grey", "black", "amber", "violet")
_VARIANTS = 8


@dataclass(frozen=True, slots=True)
class Case:
    """``schema`` is what a client would send; ``prompt`` asks for a document of it."""

    name: str
    schema: Any
    prompt: str = ""


def record(properties: Schema, *, required: list[str] | None = None, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        **more,
    }


STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}


def listing(items: Any, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _flat(n: int) -> Schema:
    fields = {
        "name": STRING,
        "count": INTEGER,
        "price": NUMBER,
        "in_stock": BOOLEAN,
        "note": STRING,
        "weight": NUMBER,
    }
    return record(dict(list(fields.items())[: 1 + n % 6]), additionalProperties=n % 2 == 0)


def _bounded(n: int) -> Schema:
    return record(
        {
            "code": {"type": "string", "minLength": n, "maxLength": n + 6},
            "level": {"type": "integer", "minimum": -n, "maximum": 10 * n + 3},
            "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1 + n},
        }
    )


def _enums(n: int) -> Schema:
    return record(
        {
            "colour": {"type": "string", "enum": list(_COLOURS[: n + 1])},
            "size": {"enum": [1, 2.5, "large", None, True][: 2 + n % 4]},
            "kind": {"const": _THINGS[n]},
        }
    )


def _nested(n: int) -> Schema:
    schema: Schema = record({"value": INTEGER, "unit": {"enum": ["bar", "kPa", "psi"]}})
    for level in range(n):
        schema = record({f"level_{level}": schema, "label": {"type": "string", "maxLength": 20}})
    return schema


def _lists(n: int) -> Schema:
    return record({"items": listing([STRING, INTEGER, NUMBER, BOOLEAN][n % 4], minItems=n % 4, maxItems=n + 1)})


def _open_lists(n: int) -> Schema:
    row = record({"name": STRING, "amount": NUMBER}, additionalProperties=False)
    return record(
        {"title": STRING, "rows": listing(row), "tags": listing(STRING)},
        required=["title", "rows", "tags"][: 1 + n % 3],
    )


def _matrix(n: int) -> Schema:
    return listing(
        listing({"type": "integer", "minimum": 0, "maximum": 9}, minItems=n % 3 + 1, maxItems=n % 3 + 1),
        minItems=1,
        maxItems=n + 1,
    )


def _formats(n: int) -> Schema:
    formats = ("date", "time", "date-time", "uuid", "email", "ipv4", "hostname", "uri")
    return record(
        {"value": {"type": "string", "format": formats[n]}, "since": {"type": "string", "format": formats[(n + 1) % 8]}}
    )


def _patterns(n: int) -> Schema:
    patterns = (
        r"^[A-Z]{3}-[0-9]{4}$",
        r"^\+[0-9]{1,3} [0-9]{4,10}$",
        r"^#[0-9a-f]{6}$",
        r"^(north|south|east|west)(-(in|out))?$",
        r"^[a-z]+(_[a-z]+)*$",
        r"^v[0-9]+\.[0-9]+\.[0-9]+$",
        r"^([01][0-9]|2[0-3]):[0-5][0-9]$",
        r"^[A-Za-z]{2,30}, [A-Za-z]{2,30}$",
    )
    return record({"code": {"type": "string", "pattern": patterns[n]}, "comment": STRING})


def _nullable(n: int) -> Schema:
    return record(
        {
            "name": {"type": ["string", "null"]},
            "age": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 130}, NULL]},
            "answers": listing({"type": ["boolean", "null"]}, maxItems=n + 2),
        }
    )


def _either(n: int) -> Schema:
    branches = [STRING, INTEGER, BOOLEAN, listing(NUMBER, maxItems=3), record({"id": INTEGER}), NULL]
    return record({"answer": {"anyOf": branches[: 2 + n % 5]}})


def _tagged(n: int) -> Schema:
    shapes = [
        record({"kind": {"const": thing}, f"{thing}_id": INTEGER, "state": {"enum": ["on", "off"]}})
        for thing in _THINGS[: 2 + n % 6]
    ]
    return record({"device": {"oneOf": shapes}, "seen": BOOLEAN})


def _defined(n: int) -> Schema:
    return {
        "$defs": {
            "point": record({"x": NUMBER, "y": NUMBER}),
            "line": record({"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}),
        },
        **record({"name": STRING, "lines": listing({"$ref": "#/$defs/line"}, minItems=1, maxItems=n + 1)}),
    }


def _recursive(n: int) -> Schema:
    if n % 2:
        node = record({"value": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/node"}, NULL]}})
    else:
        node = record(
            {
                "name": {"type": "string", "maxLength": 4 + 2 * n},
                "children": listing({"$ref": "#/$defs/node"}, maxItems=3),
            }
        )
    return {"$defs": {"node": node}, **record({"tree": {"$ref": "#/$defs/node"}})}


def _itself(n: int) -> Schema:
    return record(
        {"term": {"enum": list(_COLOURS[: n + 2])}, "left": {"$ref": "#"}, "right": {"$ref": "#"}}, required=["term"]
    )


def _closed(n: int) -> Schema:
    return record({name: {"type": "string", "maxLength": 12} for name in _THINGS[: n + 1]}, additionalProperties=False)


def _tuples(n: int) -> Schema:
    return record(
        {
            "position": {
                "type": "array",
                "prefixItems": [NUMBER, NUMBER, STRING][: 1 + n % 3],
                "items": False,
                "minItems": 1 + n % 3,
            },
            "pair": {"type": "array", "prefixItems": [{"enum": list(_PEOPLE)}, INTEGER], "minItems": 2, "maxItems": 2},
        }
    )


def _unicode(n: int) -> Schema:
    keys = ("größe", "名前", "имя", "clé", 'a "quoted" key', "emoji 🔧", "tab\tkey", "slash/key~")
    return record({keys[n]: STRING, keys[(n + 3) % 8]: {"enum": ["ä", "日本", "🔥"]}}, additionalProperties=False)


def _optional(n: int) -> Schema:
    return record(
        {name: [INTEGER, STRING, BOOLEAN][at % 3] for at, name in enumerate(_THINGS)},
        required=list(_THINGS[: n % 4]),
    )


def _maps(n: int) -> Schema:
    return {
        "type": "object",
        "additionalProperties": [INTEGER, STRING, listing(INTEGER), BOOLEAN][n % 4],
        "maxProperties": n + 2,
    }


def _ranges(n: int) -> Schema:
    return record(
        {
            "even": {"type": "integer", "minimum": 0, "maximum": 100 + n, "multipleOf": 2},
            "below": {"type": "integer", "exclusiveMaximum": -3 * n},
            "between": {"type": "integer", "exclusiveMinimum": 10**n, "exclusiveMaximum": 10**n + 17},
            "hot": {"type": "number", "minimum": -40.5, "maximum": 125.25},
        }
    )


def _together(n: int) -> Schema:
    base = record({"id": {"type": "integer", "minimum": n}, "name": STRING})
    return {
        "$defs": {"base": base},
        "allOf": [{"$ref": "#/$defs/base"}, record({"owner": {"enum": list(_PEOPLE[: n + 1])}})],
    }


def _values(n: int) -> Any:
    return (
        INTEGER,
        STRING,
        BOOLEAN,
        NUMBER,
        {"enum": list(_PEOPLE)},
        listing(STRING, minItems=1),
        {"const": {"ok": [1, None]}},
        {"type": "string", "format": "date"},
    )[n]


def _anything(n: int) -> Schema:
    return record(
        {
            "kind": {"const": "free"},
            "payload": [{}, {"type": "object"}, listing({}), {"type": ["object", "array"]}][n % 4],
        }
    )


def _wide(n: int) -> Schema:
    return record(
        {
            f"field_{at:02}": [BOOLEAN, {"type": "integer", "minimum": 0, "maximum": 99}][at % 2]
            for at in range(5 + 3 * n)
        }
    )


# What each family asks about; the text is followed by the schema's own words.
_FAMILIES: tuple[tuple[str, Callable[[int], Any]], ...] = (
    ("an article of a shop", _flat),
    ("a calibration", _bounded),
    ("a paint order", _enums),
    ("a pressure reading", _nested),
    ("a shopping list", _lists),
    ("an invoice", _open_lists),
    ("a game board", _matrix),
    ("a registration", _formats),
    ("a parts label", _patterns),
    ("a survey reply", _nullable),
    ("an answer to a quiz", _either),
    ("a device report", _tagged),
    ("a drawing", _defined),
    ("a family tree", _recursive),
    ("a formula", _itself),
    ("an inventory", _closed),
    ("a place on a map", _tuples),
    ("a form in several languages", _unicode),
    ("a maintenance log", _optional),
    ("a table of counts", _maps),
    ("a thermostat's settings", _ranges),
    ("a record with an owner", _together),
    ("one value", _values),
    ("a message", _anything),
    ("a checklist", _wide),
)


def varied() -> Iterator[Case]:
    """200 schemas that a client might send, none of them with a trick."""
    for about, family in _FAMILIES:
        for number in range(_VARIANTS):
            thing, person = _THINGS[number], _PEOPLE[number]
            yield Case(
                name=f"{family.__name__.strip('_')}-{number}",
                schema=family(number),
                prompt=f"Write {about} as JSON. It is about a {thing} that belongs to {person}.",
            )

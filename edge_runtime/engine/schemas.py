"""JSON Schemas that somebody sends: read within bounds, and narrowed to what a grammar can hold. Pure; for ``edged``.

The result admits only documents that the given schema admits (JSON Schema 2020-12, and the older drafts where they
agree with it), but fewer: objects are closed, endless strings and arrays have an end. A keyword that would not be
enforced is refused by its name, never dropped; annotations are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edge_runtime.engine import schema_types
from edge_runtime.engine.schema_merge import merged
from edge_runtime.engine.schema_sizes import exclusive, least_sizes
from edge_runtime.engine.schema_types import Bounds, refuse
from edge_runtime.engine.structure import Document

Schema = dict[str, Any]

MOST_TEXT = 64 * 1024  # characters of all keys and strings
MOST_NODES = 4000  # values in the schema as sent
MOST_SCHEMAS = 1000  # schemas in what is made of it
MOST_DEPTH = 32  # levels, of the schema as sent
MOST_NUMBER = 1e15
_CHARACTERS_A_TOKEN = 6  # no tokenizer packs JSON tighter

_ANNOTATIONS = {
    "title", "description", "default", "examples", "example", "$comment", "$schema", "$id", "id", "deprecated",
    "readOnly", "writeOnly", "contentMediaType", "contentEncoding", "$defs", "definitions", "strict",
}  # fmt: skip
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_OF: Mapping[str, tuple[str, ...]] = {
    "object": (
        "properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties",
    ),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
_ANY_TYPE = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}
_KNOWN = _ANNOTATIONS | _ANY_TYPE | {word for words in _OF.values() for word in words}


def narrow(schema: object, *, tokens: int, param: str = "response_format") -> Document:
    """``schema`` as the engine takes it, for an answer of at most ``tokens``.

    Raises:
        RequestError: it is no schema, contradicts itself, is too large, or asks for what cannot be enforced; the
            message names the place as a JSON pointer, ``param`` the field of the request.
    """
    measure(schema, param)
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        refuse("the schema", "is no JSON object; send a JSON Schema", param)
    made = _Reader(schema, tokens, param).document()
    sizes = least_sizes(made)
    least = sizes.of(made)
    if math.isinf(least):
        refuse("the schema", "admits no finite document: it always needs itself; give each recursion an end", param)
    if least > tokens * _CHARACTERS_A_TOKEN:
        refuse("the schema", f"needs at least {least:.0f} characters; raise max_tokens, or ask for less", param)
    return Document(schema=made, step=int(min(sizes.largest, least + 400)))


def measure(value: object, param: str) -> None:
    """
    Raises:
        RequestError: nested too deeply, too many values, too much text, or a number that is too large.
    """
    nodes = text = 0
    level: list[object] = [value]
    for _ in range(MOST_DEPTH + 1):
        below: list[object] = []
        for item in level:
            match item:
                case dict():
                    text += sum(map(len, item))
                    below += item.values()
                case list():
                    below += item
                case str():
                    text += len(item)
                case bool() | None:
                    pass
                case int() | float() if not abs(item) <= MOST_NUMBER:
                    refuse("the schema", f"holds a number beyond {MOST_NUMBER:g}; use smaller ones", param)
        nodes += len(level)
        if text > MOST_TEXT:
            refuse("the schema", f"holds more than {MOST_TEXT} characters; shorten it", param)
        if nodes + len(below) > MOST_NODES:
            refuse("the schema", f"holds more than {MOST_NODES} values; make it smaller", param)
        if not below:
            return
        level = below
    refuse("the schema", f"is nested deeper than {MOST_DEPTH} levels; make it flatter", param)


class _Reader:
    def __init__(self, root: Schema, tokens: int, param: str) -> None:
        self._root = root
        self._param = param
        self._bounds = Bounds(tokens=tokens, param=param)
        self._names: dict[str, str] = {}  # pointer -> name of its definition
        self._open: list[str] = []  # pointers to read yet
        self._made = 0

    def document(self) -> Schema:
        made = self.read(self._root, "#")
        definitions: Schema = {}
        while self._open:
            pointer = self._open.pop()
            definitions[self._names[pointer]] = self.read(self._resolve(pointer, pointer), pointer)
        return {**made, "$defs": definitions} if definitions else made

    def read(self, schema: object, place: str) -> Schema:
        """The narrowed form: one type, or ``anyOf``, ``enum`` or ``$ref`` alone; {} is any value."""
        self._made += 1
        if self._made > MOST_SCHEMAS or place.count("/") > 4 * MOST_DEPTH:
            refuse(place, f"makes the schema larger than {MOST_SCHEMAS} parts; make it simpler", self._param)
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            word = "admits nothing" if schema is False else "is no schema: an object, true or false is wanted"
            refuse(place, f"{word}; correct it", self._param)
        self._check_words(schema, place)
        rest = {word: value for word, value in schema.items() if word not in _ANNOTATIONS}
        if "$ref" in rest and len(rest) == 1:
            return {"$ref": f"#/$defs/{self._name(rest['$ref'], place)}"}
        if "$ref" in rest:
            target = self._resolve(rest.pop("$ref"), place)
            return self.read(merged([rest, target], place, self._param), f"{place}/$ref")
        if "allOf" in rest:
            parts = self._list(rest.pop("allOf"), f"{place}/allOf")
            whole = merged([rest, *(self._plain(part, place) for part in parts)], place, self._param)
            return self.read(whole, f"{place}/allOf")
        if "const" in rest or "enum" in rest:
            return self._values(rest, place)
        for word in ("anyOf", "oneOf"):
            if word in rest:
                return self._choice(rest, word, place)
        return self._typed(rest, place)

    def _check_words(self, schema: Schema, place: str) -> None:
        for word in schema:
            if word not in _KNOWN and not word.startswith("x-"):
                refuse(
                    f"{place}/{word}",
                    "is a keyword that cannot be enforced; leave it out, or say it otherwise",
                    self._param,
                )

    def _list(self, given: object, place: str) -> list[Any]:
        if not isinstance(given, list) or not given:
            refuse(place, "must be a list of schemas that is not empty; correct it", self._param)
        return given

    def _name(self, reference: object, place: str) -> str:
        self._resolve(reference, place)
        pointer = str(reference)
        if pointer not in self._names:
            self._names[pointer] = f"r{len(self._names)}"
            self._open.append(pointer)
        return self._names[pointer]

    def _resolve(self, reference: object, place: str) -> Any:
        if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
            refuse(f"{place}/$ref", 'points out of the schema; only "#" and "#/..." can be followed', self._param)
        found: Any = self._root
        for part in reference.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isascii() and key.isdecimal() and int(key[:6]) < len(found):
                found = found[int(key)]
            else:
                refuse(f"{place}/$ref", f"points at {reference[:80]}, which is not there; correct it", self._param)
        return found

    def _plain(self, part: object, place: str, depth: int = 0) -> Any:
        """A part of ``allOf`` with its reference followed."""
        if not isinstance(part, dict) or "$ref" not in part:
            return part
        if depth > MOST_DEPTH:
            refuse(place, "refers to itself and nothing else; give it content", self._param)
        self._check_words(part, place)
        rest = {word: value for word, value in part.items() if word != "$ref"}
        target = self._plain(self._resolve(part["$ref"], place), place, depth + 1)
        return merged([rest, target], place, self._param)

    def _choice(self, rest: Schema, word: str, place: str) -> Schema:
        branches = self._list(rest[word], f"{place}/{word}")
        others = {key: value for key, value in rest.items() if key != word}
        made = []
        for number, branch in enumerate(branches):
            if branch is False:
                continue
            where = f"{place}/{word}/{number}"
            plain = self._plain(branch, where) if others else branch
            made.append(self.read(merged([others, plain], where, self._param) if others else branch, where))
        if not made:
            refuse(f"{place}/{word}", "admits nothing; correct it", self._param)
        if word == "oneOf" and not exclusive(made):
            refuse(f"{place}/oneOf", "has alternatives that may overlap; use anyOf", self._param)
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _values(self, rest: Schema, place: str) -> Schema:
        given = [rest["const"]] if "const" in rest else self._list(rest["enum"], f"{place}/enum")
        if "const" in rest and "enum" in rest:
            given = [value for value in self._list(rest["enum"], f"{place}/enum") if same(value, rest["const"])]
        kinds = self._kinds(rest, place) if "type" in rest else _TYPES
        values = [
            value for value in given if kind_of(value) in kinds or (kind_of(value) == "integer" and "number" in kinds)
        ]
        for word in rest.keys() - {"type", "enum", "const"}:
            refuse(f"{place}/{word}", "stands beside enum or const; leave it out there", self._param)
        if not values:
            refuse(place, "admits none of its own values; make type, enum and const agree", self._param)
        return {"enum": values}

    def _kinds(self, rest: Schema, place: str) -> tuple[str, ...]:
        kinds = rest["type"]
        kinds = tuple(kinds) if isinstance(kinds, list) else (kinds,)
        if not kinds or any(not isinstance(kind, str) or kind not in _TYPES for kind in kinds):
            refuse(f"{place}/type", f"is none of {', '.join(_TYPES)}; correct it", self._param)
        return tuple(dict.fromkeys(kinds))

    def _typed(self, rest: Schema, place: str) -> Schema:
        if "type" in rest:
            kinds = self._kinds(rest, place)
        else:
            # The keywords say which type is meant; a schema without any admits every value.
            kinds = tuple(kind for kind, words in _OF.items() if any(word in rest for word in words))
        if not kinds:
            return {}
        made = [self._one(kind, rest, place) for kind in kinds]
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _one(self, kind: str, rest: Schema, place: str) -> Schema:
        words = {word: rest[word] for word in _OF.get("number" if kind == "integer" else kind, ()) if word in rest}
        match kind:
            case "object":
                return schema_types.read_object(words, place, self._bounds, self.read)
            case "array":
                return schema_types.read_array(words, place, self._bounds, self.read)
            case "string":
                return schema_types.read_string(words, place, self._bounds)
            case "integer" | "number":
                return schema_types.read_number(kind, words, place, self._bounds)
            case _:
                return {"type": kind}


def kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def same(one: object, other: object) -> bool:
    return kind_of(one) == kind_of(other) and one == other

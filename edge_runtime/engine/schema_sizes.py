"""How short a document of a narrowed schema can be, and whether two of them can share a document. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]
_SHAPED = 20  # characters of a string with a format or a pattern, about


@dataclass(slots=True)
class Sizes:
    """Characters of the shortest document of each definition, and the most that one part of a document needs."""

    definitions: dict[str, float] = field(default_factory=dict)
    largest: float = 0.0

    def of(self, schema: Schema) -> float:
        """Infinite: none that ends."""
        if "$ref" in schema:
            return self.definitions[schema["$ref"].rpartition("/")[2]]
        if "enum" in schema:
            return min(len(json.dumps(value, ensure_ascii=False)) for value in schema["enum"])
        if "anyOf" in schema:
            return min(self._part(branch) for branch in schema["anyOf"])
        match schema.get("type"):
            case "object":
                sizes = {name: self._part(part) for name, part in schema.get("properties", {}).items()}
                entries = [self._part(part) + 8 for part in schema.get("patternProperties", {}).values()]
                wanted = sum(len(name) + 6 + sizes[name] for name in schema.get("required", []))
                return 2 + wanted + sum(entries if schema.get("minProperties") else [])
            case "array":
                first = [self._part(part) for part in schema.get("prefixItems", [])]
                rest = self._part(schema["items"]) if schema.get("items") else 0.0
                count = schema["minItems"]
                more = max(0, count - len(first))
                return 2 + sum(size + 2 for size in first[:count]) + (more * (rest + 2) if more else 0)
            case "string":
                return 2 + (_SHAPED if "format" in schema or "pattern" in schema else schema.get("minLength", 0))
            case "boolean" | "null":
                return 4
            case _:
                return 1

    def _part(self, schema: Schema) -> float:
        size = self.of(schema)
        if not math.isinf(size):
            self.largest = max(self.largest, size)
        return size


def least_sizes(schema: Schema) -> Sizes:
    """Of each definition of ``schema``: the least fixed point, from infinity down."""
    definitions: dict[str, Schema] = schema.get("$defs", {})
    sizes = Sizes(dict.fromkeys(definitions, math.inf))
    for _ in range(len(definitions) + 1):
        found = {name: sizes.of(part) for name, part in definitions.items()}
        if found == sizes.definitions:
            break
        sizes.definitions = found
    return sizes


def exclusive(schemas: Sequence[Schema]) -> bool:
    """Whether it is plain that no document belongs to two of them."""
    return all(_apart(one, other) for number, one in enumerate(schemas) for other in schemas[:number])


def _apart(one: Schema, other: Schema) -> bool:
    for left, right in ((one, other), (other, one)):
        if "anyOf" in left:
            return all(_apart(branch, right) for branch in left["anyOf"])
    if "enum" in one and "enum" in other:
        return not any(value == wanted for value in one["enum"] for wanted in other["enum"])
    kinds = [_kinds(schema) for schema in (one, other)]
    if kinds[0] is not None and kinds[1] is not None and not kinds[0] & kinds[1]:
        return True
    if one.get("type") != "object" or other.get("type") != "object":
        return False
    mine, yours = one.get("properties", {}), other.get("properties", {})
    shared = set(one.get("required", [])) & set(other.get("required", []))
    return any(
        "enum" in mine[name] and "enum" in yours[name] and _apart(mine[name], yours[name]) for name in shared
    ) or bool(set(one.get("required", [])) - set(yours) and set(other.get("required", [])) - set(mine))


def _kinds(schema: Schema) -> set[str] | None:
    if "enum" in schema:
        return {"number" if isinstance(value, int | float) and not isinstance(value, bool) else
                {str: "string", bool: "boolean", list: "array", dict: "object"}.get(type(value), "null")
                for value in schema["enum"]}  # fmt: skip
    kind = schema.get("type")
    return {"number" if kind == "integer" else kind} if isinstance(kind, str) else None

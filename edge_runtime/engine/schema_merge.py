"""Schemas that must all hold, as one: for ``allOf``, and for keywords beside ``$ref``, ``anyOf`` or ``oneOf``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_runtime.engine.schema_types import refuse

Schema = dict[str, Any]
_LARGEST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_SMALLEST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_MOST_PARTS = 32  # of one allOf, once the inner ones are written out


def merged(parts: Sequence[object], place: str, param: str) -> object:
    """One schema that admits what all ``parts`` admit.

    Raises:
        RequestError: a keyword stands in two of them with values that cannot be put together.
    """
    whole: Schema = {}
    for part in parts:
        if part is True:
            continue
        if not isinstance(part, dict):
            return part  # false, or no schema: the reader says so
        _open_only(whole, part, place, param)
        for word, value in part.items():
            if word in whole and whole[word] != value:
                whole[word] = _both(word, whole[word], value, place, param)
            else:
                whole[word] = value
    return whole


def _open_only(whole: Schema, part: Schema, place: str, param: str) -> None:
    """``additionalProperties`` looks at the properties beside it alone, so two lists of properties need it open."""
    for one, other in ((whole, part), (part, whole)):
        named = one.get("properties", {})
        beside = other.get("properties", {})
        if one.get("additionalProperties", True) is not True and (
            not isinstance(named, dict) or not isinstance(beside, dict) or set(beside) - set(named)
        ):
            refuse(place, "puts properties beside an object that is closed; name them all in that object", param)


def _both(word: str, one: Any, other: Any, place: str, param: str) -> Any:
    match word:
        case "properties" if isinstance(one, dict) and isinstance(other, dict):
            return {
                name: {"allOf": [one[name], other[name]]}
                if name in one and name in other and one[name] != other[name]
                else one.get(name, other.get(name))
                for name in {**one, **other}
            }
        case "required" if isinstance(one, list) and isinstance(other, list):
            return [*one, *(name for name in other if name not in one)]
        case "type":
            kinds = [one] if isinstance(one, str) else one
            others = [other] if isinstance(other, str) else other
            if isinstance(kinds, list) and isinstance(others, list):
                both = [kind for kind in kinds if kind in others or (kind == "integer" and "number" in others)]
                both += ["integer"] if "integer" in others and "number" in kinds and "integer" not in both else []
                if both:
                    return both
        case "enum" if isinstance(one, list) and isinstance(other, list):
            return [value for value in one if value in other]
        case "additionalProperties" if one is True or other is True:
            return other if one is True else one
        case "allOf" if isinstance(one, list) and isinstance(other, list) and len(one) + len(other) <= _MOST_PARTS:
            return [*one, *other]
        case "anyOf" | "oneOf":
            pass
        case _ if word in _LARGEST | _SMALLEST and _number(one) and _number(other):
            return max(one, other) if word in _LARGEST else min(one, other)
        case (
            "title" | "description" | "default" | "examples" | "$defs" | "definitions" | "$comment" | "$id" | "$schema"
        ):
            return one
        case _:
            pass
    return refuse(f"{place}/{word}", "is said twice, differently (allOf, $ref or anyOf beside it); say it once", param)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""The keywords of each JSON type, checked and narrowed, for :mod:`edge_runtime.engine.schemas`. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from edge_runtime.engine.patterns import check_pattern
from edge_runtime.errors import RequestError

Schema = dict[str, Any]
Read = Callable[[object, str], Schema]

_DATE = (
    "[12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?(Z|[+-](0[0-9]|1[0-3]):[0-5]0)"
_NAME = "[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?"
# Formats as patterns: of what RFC 3339, 3986, 5321 and ISO 8601 allow, the part that is usual and has an end. None: the
# grammar's library has one with an end.
_FORMATS = {
    "date-time": f"^{_DATE}T{_TIME}$",
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "duration": "^P([1-9][0-9]{0,2}[YMWD]|([1-9][0-9]{0,2}D)?T[1-9][0-9]{0,3}[HMS])$",
    "email": rf"^[A-Za-z0-9]{{1,24}}([._+-][A-Za-z0-9]{{1,24}}){{0,2}}@{_NAME}(\.{_NAME}){{0,2}}\.[a-z]{{2,8}}$",
    "hostname": rf"^{_NAME}(\.{_NAME}){{0,4}}$",
    "uri": rf"^[a-z][a-z0-9+.-]{{1,10}}:(//{_NAME}(\.{_NAME}){{0,4}}(:[1-9][0-9]{{1,3}})?)?"
    r"(/[A-Za-z0-9._~-]{0,32}){0,6}(\?[A-Za-z0-9=&._-]{1,60})?(#[A-Za-z0-9_-]{1,40})?$",
    "ipv4": None,
    "ipv6": None,
    "uuid": None,
}
MOST_COUNT = 100_000  # what minItems, maxLength and their like may say
MOST_PROPERTIES = 300
_ITEMS = 64  # of an array that names no end
_ENTRIES = 32  # of an object that names no properties
_KEY = "^.{1,48}$"  # of such an entry
_WHOLE = 10**9  # an integer that names no end
_MOST_STEP = 1000  # of multipleOf, decimal point and zeros aside
_DIGITS = 1e-6  # a number that names no step


@dataclass(frozen=True, slots=True)
class Bounds:
    """``tokens``: of the whole answer; ``param``: the field of the request that holds the schema."""

    tokens: int
    param: str

    @property
    def characters(self) -> int:
        """Of a string that names no end: about a quarter of the answer."""
        return max(64, self.tokens)


def refuse(place: str, problem: str, param: str) -> NoReturn:
    shown = place if len(place) <= 120 else f"{place[:60]}...{place[-50:]}"
    raise RequestError(f"{shown} {problem}", param=param)


def _count(words: Schema, word: str, place: str, param: str) -> int | None:
    if word not in words:
        return None
    value = words[word]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(f"{place}/{word}", "must be a whole number, not negative; correct it", param)
    if value > MOST_COUNT:
        refuse(f"{place}/{word}", f"is over {MOST_COUNT}; lower it", param)
    return value


def _range(words: Schema, kind: str, place: str, param: str) -> tuple[int, int | None]:
    least, most = _count(words, f"min{kind}", place, param) or 0, _count(words, f"max{kind}", place, param)
    if most is not None and least > most:
        refuse(place, f"has min{kind} over max{kind}; correct one of them", param)
    return least, most


def read_string(words: Schema, place: str, bounds: Bounds) -> Schema:
    made: Schema = {"type": "string"}
    least, most = _range(words, "Length", place, bounds.param)
    if "format" in words:
        known = words["format"]
        if not isinstance(known, str) or known not in _FORMATS:
            refuse(
                f"{place}/format", f"cannot be enforced; use one of {', '.join(_FORMATS)}, or a pattern", bounds.param
            )
        if len(words) > 1:
            refuse(f"{place}/format", "stands beside other limits of the string; keep one of them", bounds.param)
        pattern = _FORMATS[known]
        return {**made, "format": known} if pattern is None else {**made, "pattern": pattern}
    if "pattern" in words:
        if not isinstance(words["pattern"], str):
            refuse(f"{place}/pattern", "must be a string; correct it", bounds.param)
        check_pattern(words["pattern"], f"{place}/pattern", bounds.param)
        made["pattern"] = words["pattern"]
    if least:
        made["minLength"] = least
    made["maxLength"] = max(least, bounds.characters) if most is None else min(most, max(least, 4 * bounds.tokens))
    return made


def read_number(kind: str, words: Schema, place: str, bounds: Bounds) -> Schema:
    for word, value in words.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            refuse(f"{place}/{word}", "must be a number; correct it", bounds.param)
    whole = kind == "integer"
    step = words.get("multipleOf")
    if step is not None and (step <= 0 or (whole and step != int(step))):
        refuse(f"{place}/multipleOf", "must be over 0, and whole for an integer; correct it", bounds.param)
    if step is not None and _digits(step) > _MOST_STEP:
        refuse(f"{place}/multipleOf", f"has more digits than {_MOST_STEP} has; use a simpler one", bounds.param)
    low, high = _ends(words, whole=whole)
    if low is not None and high is not None:
        open_ended = "exclusiveMinimum" in words or "exclusiveMaximum" in words
        if low > high or (low == high and open_ended and not whole):
            refuse(place, "has its minimum over its maximum; correct one of them", bounds.param)
        if step is not None and math.floor(high / step) * step < low:
            refuse(
                place, "has no multiple of multipleOf between minimum and maximum; correct one of them", bounds.param
            )
    if whole:
        least = low if low is not None else min(-_WHOLE, (high or 0) - _WHOLE)
        most = high if high is not None else max(_WHOLE, least + _WHOLE)
        return {
            "type": "integer",
            "minimum": int(least),
            "maximum": int(most),
            **({} if step is None else {"multipleOf": int(step)}),
        }
    made: Schema = {"type": "number", **{word: value for word, value in words.items() if word != "multipleOf"}}
    if low is None:
        made["minimum"] = min(-_WHOLE, (high or 0) - _WHOLE)
    if high is None:
        made["maximum"] = max(_WHOLE, (low or 0) + _WHOLE)
    made["multipleOf"] = _DIGITS if step is None else step
    return made


def _digits(step: float) -> int:
    """The step's digits as a whole number: an automaton that keeps to multiples has as many states."""
    return int("".join(map(str, Decimal(repr(step)).normalize().as_tuple().digits)))


def _ends(words: Schema, *, whole: bool) -> tuple[float | None, float | None]:
    lows = [words[word] for word in ("minimum", "exclusiveMinimum") if word in words]
    highs = [words[word] for word in ("maximum", "exclusiveMaximum") if word in words]
    if not whole:
        return max(lows, default=None), min(highs, default=None)
    lows = [math.ceil(words["minimum"])] if "minimum" in words else []
    lows += [math.floor(words["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in words else []
    highs = [math.floor(words["maximum"])] if "maximum" in words else []
    highs += [math.ceil(words["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in words else []
    return max(lows, default=None), min(highs, default=None)


def read_array(words: Schema, place: str, bounds: Bounds, read: Read) -> Schema:
    if words.get("uniqueItems"):
        refuse(f"{place}/uniqueItems", "cannot be enforced; leave it out", bounds.param)
    least, most = _range(words, "Items", place, bounds.param)
    first, items = words.get("prefixItems", []), words.get("items", True)
    if isinstance(items, list):  # before 2020-12
        first, items = items, words.get("additionalItems", True)
    if not isinstance(first, list):
        refuse(f"{place}/prefixItems", "must be a list of schemas; correct it", bounds.param)
    named = len(first)
    if items is False or (first and "items" not in words and least <= named):
        # The rest may be anything or nothing: nothing is shorter.
        most = named if most is None else min(most, named)
        items = False
    if most is None:
        most = max(_ITEMS, least + _ITEMS // 4)
    most = min(most, max(least, bounds.tokens))
    if least > most:
        refuse(place, f"wants {least} items, and admits {most}; correct it", bounds.param)
    made: Schema = {"type": "array", "minItems": least, "maxItems": most}
    if first:
        made["prefixItems"] = [read(item, f"{place}/prefixItems/{number}") for number, item in enumerate(first[:most])]
    if items is not False and most > named:
        made["items"] = read(items, f"{place}/items")
    elif first:
        made["items"] = False
    return made


def read_object(words: Schema, place: str, bounds: Bounds, read: Read) -> Schema:
    least, most = _range(words, "Properties", place, bounds.param)
    properties = words.get("properties", {})
    patterns = words.get("patternProperties", {})
    more = words.get("additionalProperties", True)
    required = words.get("required", [])
    if not isinstance(properties, dict) or not isinstance(patterns, dict):
        word = "patternProperties" if isinstance(properties, dict) else "properties"
        refuse(f"{place}/{word}", "must be an object of schemas; correct it", bounds.param)
    if not isinstance(required, list) or any(not isinstance(name, str) for name in required):
        refuse(f"{place}/required", "must be a list of names; correct it", bounds.param)
    if len(properties) + len(required) > 2 * MOST_PROPERTIES or len(properties) > MOST_PROPERTIES:
        refuse(f"{place}/properties", f"are more than {MOST_PROPERTIES}; make the object smaller", bounds.param)
    if patterns:
        return _patterned(words, place, bounds, read)
    wanted = list(dict.fromkeys(required))
    named: Schema = {name: schema for name, schema in properties.items() if schema is not False or name in wanted}
    for name in wanted:
        if name not in named:
            if more is False:
                refuse(f"{place}/required", f"names {name[:80]!r}, which no property allows; correct it", bounds.param)
            named[name] = more
    if not named and more is not False:
        return _map(more, place, bounds, read, least=least, most=most)
    # Closed: what is not named may stay away. Names are made required, or dropped, until the counts are right.
    optional = [name for name in named if name not in wanted]
    wanted += optional[: max(0, least - len(wanted))]
    if len(wanted) < least or (most is not None and len(wanted) > most):
        refuse(place, f"cannot hold as many properties as it wants ({least} to {most}); correct it", bounds.param)
    kept = [name for name in named if name in set(wanted)]
    if most is not None:
        kept += [name for name in named if name not in set(wanted)][: most - len(wanted)]
    else:
        kept = list(named)
    return {
        "type": "object",
        "properties": {name: read(named[name], f"{place}/properties/{name}") for name in named if name in set(kept)},
        "required": wanted,
        "additionalProperties": False,
    }


def _map(more: object, place: str, bounds: Bounds, read: Read, *, least: int, most: int | None) -> Schema:
    """An object of any names. A name may come twice, and then counts once: two at least cannot be promised."""
    if least > 1:
        refuse(f"{place}/minProperties", "over 1 cannot be enforced without properties; name them", bounds.param)
    if most == 0:
        return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    return {
        "type": "object",
        "patternProperties": {_KEY: read(more, f"{place}/additionalProperties")},
        "additionalProperties": False,
        "minProperties": least,
        "maxProperties": _ENTRIES if most is None else min(most, _ENTRIES),
    }


def _patterned(words: Schema, place: str, bounds: Bounds, read: Read) -> Schema:
    ((pattern, schema), *others) = words["patternProperties"].items()
    if others or words.get("properties") or words.get("required") or words.get("minProperties", 0) > 1:
        refuse(
            f"{place}/patternProperties", "can be enforced alone, and one of them; name the properties", bounds.param
        )
    check_pattern(pattern, f"{place}/patternProperties", bounds.param)
    return {
        "type": "object",
        "patternProperties": {pattern: read(schema, f"{place}/patternProperties/{pattern}")},
        "additionalProperties": False,
        "minProperties": words.get("minProperties", 0),
        "maxProperties": min(words.get("maxProperties", _ENTRIES), _ENTRIES),
    }

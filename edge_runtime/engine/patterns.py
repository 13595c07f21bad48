"""Bounds of a regular expression that somebody sends: read by a scanner, never compiled here. Pure.

Counts how large it is once its repetitions are written out, and refuses what no finite automaton can do. Whether it is
well-formed in all else is for the grammar's own parser to say.
"""

from __future__ import annotations

import re

from edge_runtime.errors import RequestError

MOST_CHARACTERS = 512
MOST_STATES = 2000  # characters and classes, once repetitions are written out
_REPEAT = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_AROUND = ("(?=", "(?!", "(?<=", "(?<!")


def check_pattern(pattern: str, place: str, param: str) -> None:
    """
    Raises:
        RequestError: too long, too large, or with look-around or back references.
    """
    if len(pattern) > MOST_CHARACTERS:
        raise RequestError(f"{place}: a pattern has at most {MOST_CHARACTERS} characters; shorten it", param=param)
    if any(mark in pattern for mark in _AROUND) or re.search(r"\\(?:[1-9]|k<)", pattern):
        raise RequestError(
            f"{place}: a pattern cannot look around or refer back to a group; write it without", param=param
        )
    if _size(pattern, place, param) > MOST_STATES:
        raise RequestError(
            f"{place}: the repetitions of this pattern make it larger than {MOST_STATES} characters; bound them lower",
            param=param,
        )


def _size(pattern: str, place: str, param: str) -> int:
    groups = [0]  # the size of each group that is open
    last = 0  # the size of what a repetition would repeat
    at = 0
    while at < len(pattern):
        repeat = _REPEAT.match(pattern, at)
        if repeat is not None:
            times = max(int(repeat[1]), int(repeat[3] or 0), 1)
            groups[-1] += last * (times - 1)
            last *= times
            at = repeat.end()
            continue
        match pattern[at]:
            case "\\":
                at, last = at + 2, 1
                groups[-1] += 1
            case "[":
                at, last = _class_end(pattern, at), 1
                groups[-1] += 1
            case "(":
                groups.append(0)
                at += 1
            case ")":
                if len(groups) == 1:
                    raise RequestError(f"{place}: the pattern closes a group that is not open; correct it", param=param)
                last = groups.pop()
                groups[-1] += last
                at += 1
            case "*" | "+" | "?" | "|" | "^" | "$":
                at += 1
            case _:
                at, last = at + 1, 1
                groups[-1] += 1
        if len(groups) > 32 or groups[-1] > MOST_STATES:
            return MOST_STATES + 1
    if len(groups) > 1:
        raise RequestError(f"{place}: the pattern leaves a group open; close it", param=param)
    return groups[0]


def _class_end(pattern: str, at: int) -> int:
    at += 2 if pattern[at + 1 : at + 2] in ("^", "]") else 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1

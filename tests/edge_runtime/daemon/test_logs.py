"""Log lines: one JSON object each, and an exception without its message."""

from __future__ import annotations

import json
import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.logs import Lines


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("edged", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none()))
def test_any_fields_make_one_line_of_json(message: str, fields: dict[str, object]) -> None:
    line = Lines().format(record(message, fields=fields))
    assert "\n" not in line
    assert json.loads(line).items() >= fields.items()


def test_an_exception_is_told_by_its_type_and_place_alone() -> None:
    try:
        int("marmalade")
    except ValueError:
        line = Lines().format(record("broken", exc_info=sys.exc_info()))
    told = json.loads(line)
    assert told["exception"] == "ValueError"
    assert "test_logs.py" in told["frames"][-1]
    assert "marmalade" not in line

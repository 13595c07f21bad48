"""Whether a JSON text stands inside a string, however it is cut."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.closing import Scanner

_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)


@given(_VALUES, st.booleans())
def test_a_whole_document_ends_outside_every_string(value: Any, ascii_only: bool) -> None:
    scanner = Scanner()
    for byte in json.dumps(value, ensure_ascii=ascii_only).encode():
        scanner.feed(bytes([byte]))
    assert not scanner.inside


@given(st.text(max_size=20), st.integers(0, 99))
def test_a_string_is_inside_until_its_last_quote(text: str, cut: int) -> None:
    data = json.dumps(text).encode()
    at = 1 + cut % (len(data) - 1)
    scanner = Scanner()
    scanner.feed(data[:at])
    assert scanner.inside == (at < len(data))
    copy = scanner.copy()
    copy.feed(data[at:])
    assert not copy.inside
    assert scanner.inside == (at < len(data))

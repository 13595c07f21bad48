"""Bodies: whatever arrives is either the type it should be or a refusal that can be read."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.call import decode
from edge_runtime.daemon.routes import ROUTES
from edge_runtime.errors import RequestError
from edge_runtime.openai_protocol import ChatRequest

BODIES = [route.body for route in ROUTES if route.body is not None]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(BODIES), st.binary())
def test_no_bytes_break_a_decoder(kind: type[msgspec.Struct], raw: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert isinstance(decode(raw, kind), kind)


@given(st.sampled_from(BODIES), anything)
def test_no_json_breaks_a_decoder(kind: type[msgspec.Struct], value: object) -> None:
    with contextlib.suppress(RequestError):
        assert isinstance(decode(msgspec.json.encode(value), kind), kind)


@pytest.mark.parametrize(
    ("raw", "param", "message"),
    [
        (b'{"model": "x", "messages": [{"role": "user"}], "max_tokens": -3}', "max_tokens", "max_tokens: Expected"),
        (b'{"model": "x"}', "messages", "messages: Object missing"),
        (b'{"model": "x", "messages": [{"role": "king"}]}', "messages[0].role", "messages[0].role: Invalid enum"),
        (
            b'{"model": "x", "messages": [{"role": "user"}], "edge": {"hue": 1}}',
            "edge.hue",
            "edge.hue: Object contains",
        ),
        (b'{"model" "x"}', None, "byte 9"),
    ],
)
def test_a_refusal_names_the_field_or_the_byte(raw: bytes, param: str | None, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode(raw, ChatRequest)
    assert caught.value.param == param
    assert message in caught.value.message

"""Bodies: whatever arrives is either the type it should be or a refusal that can be read."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.adapter_protocol import AdapterAdd
from edge_runtime.daemon.call import decode
from edge_runtime.daemon.openapi import describe
from edge_runtime.daemon.routes import ROUTES
from edge_runtime.engine_protocol import ScoreRequest
from edge_runtime.errors import RequestError
from edge_runtime.knowledge_protocol import AskRequest, DocumentAdd
from edge_runtime.openai_protocol import ChatRequest
from edge_runtime.protocol import BackupRequest

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


@pytest.mark.parametrize(
    ("raw", "kind", "message"),
    [
        (
            b'{"name": "A b", "content": ""}',
            AdapterAdd,
            "name: this cannot be a name; write 1 to 64 of a-z, 0-9, dot, dash and underscore, beginning with a",
        ),
        (
            b'{"question": "x", "collection": "a/b"}',
            AskRequest,
            "collection: this cannot be a name; write 1 to 64 of a-z, 0-9, dash and underscore, beginning with a",
        ),
        (b'{"name": "../x"}', BackupRequest, "name: this cannot be a name; write 1 to 100 of A-Z, a-z, 0-9, dot, "),
        (b'{"choices": [""]}', ScoreRequest, "choices[0]: it is empty; give at least 1 character"),
        (b'{"choices": []}', ScoreRequest, "choices: it is empty; give at least 1 item"),
        (
            b'{"choices": ["%s"]}' % (b"x" * 501),
            ScoreRequest,
            "choices[0]: it is too long; give at most 500 characters",
        ),
        (b'{"name": "x", "content": "a b"}', AdapterAdd, "content: Invalid base64 encoded string; send the bytes in"),
        (b'{"name": "x", "content": "YWJj?"}', DocumentAdd, "content: Invalid base64 encoded string; send the bytes"),
        (b'{"name": "x"}', DocumentAdd, "content: Object missing required field `content`; add it"),
        (b'{"name": "x", "hue": 1}', BackupRequest, "hue: Object contains unknown field `hue`; leave it out"),
        (b'{"question": "x", "mode": "y"}', AskRequest, "mode: Invalid enum value 'y'; /openapi.json lists those"),
    ],
)
def test_a_refusal_says_in_words_what_would_be_taken(raw: bytes, kind: type[msgspec.Struct], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode(raw, kind)
    assert caught.value.message.startswith(message)
    assert caught.value.param == message.partition(":")[0]


def test_names_of_our_own_are_described_in_words_and_files_as_base64() -> None:
    schemas = describe(ROUTES)["components"]["schemas"]
    for kind in ("AdapterAdd", "DocumentAdd"):
        properties = schemas[kind]["properties"]
        content = {key: properties["content"][key] for key in ("type", "contentEncoding")}
        assert content == {"type": "string", "contentEncoding": "base64"}
        assert "RFC 4648" in properties["content"]["description"]
    assert schemas["AdapterAdd"]["properties"]["name"]["description"].startswith("1 to 64 of a-z")


def test_the_bytes_of_a_file_are_what_base64_says() -> None:
    assert decode(b'{"name": "x", "content": "AP8Q"}', AdapterAdd).content == b"\0\xff\x10"

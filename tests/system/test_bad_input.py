"""What a careless or hostile client sends: each gets a clear error in OpenAI's shape, and the daemon goes on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from models.store import Store
from tests.box import Box, Reply, dial, running
from tests.edge_runtime.knowledge.pdfs import bomb, locked, pdf

CHAT = "/v1/chat/completions"
HELLO = {"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
LIMITS = "[server]\nheader_seconds = 1.0\nbody_seconds = 1.0\nstall_seconds = 1.0\n"


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root, LIMITS) as started:
        yield started
        assert started.chat().status == 200


@pytest.fixture(autouse=True)
def goes_on(box: Box) -> Iterator[None]:
    """After each of these the same daemon is there, with the same children."""
    before = box.status()["children"]
    yield
    assert box.status()["children"] == before


def refusal(reply: Reply, status: int, code: str, param: str | None = None) -> str:
    """Checks an error's shape; its message."""
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"].startswith("application/json")
    assert set(reply.error) == {"message", "type", "code", "param"}
    assert (reply.error["code"], reply.error["param"]) == (code, param)
    message: str = reply.error["message"]
    assert message
    return message


def exchange(box: Box, *sent: bytes) -> Reply:
    """What comes back, until the daemon closes, for bytes that ``http.client`` would not send."""
    with dial(box.socket) as connection:
        for part in sent:
            connection.sendall(part)
            time.sleep(0.05)  # each part in a segment of its own
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        body = reply.read()
        assert connection.recv(65536) == b""
    return Reply(reply.status, dict(reply.getheaders()), body)


def logged(box: Box, key: str, status: int, route: str = "unknown") -> None:
    """There is one line in the log for this request, and it says this."""
    box.wait(lambda: key in box.log)
    (line,) = [json.loads(line) for line in box.log.splitlines() if key in line]
    assert (line["event"], line["route"], line["status"]) == ("request", route, status)
    assert line["peer"] == f"uid {os.geteuid()}"


def test_malformed_json_is_answered_with_the_place(box: Box) -> None:
    message = refusal(box.post(CHAT, b'{"model": "default", messages: []}'), 400, "invalid_request")
    assert "byte 21" in message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"model": "\xff"}', b"null", b"[]", b'"text"', b"{" * 50_000, b"[" * 500_000],
)
def test_a_body_that_is_no_json_object_is_refused(box: Box, body: bytes) -> None:
    assert box.post(CHAT, body).status == 400


def test_json_that_is_nested_without_end_is_refused(box: Box) -> None:
    body = b'{"model":"default","messages":[{"role":"user","content":"x"}],"tools":[{"a":' + b"[" * 100_000
    assert box.post(CHAT, body).status == 400


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": "high"}, "top_p"),
        ({"n": 9}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": "x" * 257}, "stop"),
        ({"stop": ["x", "x" * 257]}, "stop[1]"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": 2**31}, "max_completion_tokens"),
        ({"top_k": 10**30}, "top_k"),
        ({"edge": {"deadline_ms": 10**400}}, "edge.deadline_ms"),
        ({"logit_bias": {"word": 1}}, "logit_bias"),
        ({"logit_bias": {"1_0": 1}}, "logit_bias"),
        ({"logit_bias": {str(10**30): 1}}, "logit_bias"),
        ({"logit_bias": {str(10**8): 1}}, "logit_bias"),
        ({"edge": {"priority": "now"}}, "edge.priority"),
        ({"edge": {"colour": "red"}}, "edge.colour"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"guided_json": {"type": "strnig"}}, "guided_json"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"mirostat": 2}, "mirostat"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"edge": {"collection": "default"}}, "edge.collection"),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_named(box: Box, change: dict[str, Any], param: str | None) -> None:
    reply = box.post(CHAT, {**HELLO, **change})
    if param is None:
        assert reply.status == 400
    else:
        refusal(reply, 400, "invalid_request", param)


def test_a_missing_field_is_named(box: Box) -> None:
    refusal(box.post(CHAT, {"model": "default"}), 400, "invalid_request", "messages")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "the end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"edge": {"collection": "default"}}, "edge.collection"),
    ],
)
def test_what_a_completion_cannot_honour_is_named(box: Box, change: dict[str, Any], param: str) -> None:
    reply = box.post("/v1/completions", {"model": "default", "prompt": "x", "max_tokens": 2, **change})
    refusal(reply, 400, "invalid_request", param)


def test_fields_that_change_no_output_are_let_through(box: Box) -> None:
    harmless = {"service_tier": "auto", "store": False, "metadata": {"a": "b"}, "user": "me", "safety_identifier": "s"}
    idle = {"tool_choice": "auto", "parallel_tool_calls": True, "modalities": ["text"], "best_of": 1, "n": 1}
    assert box.post(CHAT, {**HELLO, **harmless, **idle, "prompt_cache_key": "k"}).status == 200


def test_null_is_the_default(box: Box) -> None:
    names = ("n", "stream", "stop", "seed", "temperature", "top_p", "frequency_penalty", "presence_penalty", "edge")
    more = ("cache_prompt", "ignore_eos", "logprobs", "logit_bias", "tools", "tool_choice", "response_format", "audio")
    assert box.post(CHAT, {**HELLO, **dict.fromkeys((*names, *more))}).status == 200
    completion = {"model": "default", "prompt": "x", "max_tokens": 2, "echo": None, "suffix": None, "best_of": None}
    assert box.post("/v1/completions", {**completion, **dict.fromkeys((*names, *more))}).status == 200
    assert box.post("/edge/v1/ask", {"question": "x", "collection": None, "edge": None}).status == 200
    assert box.post("/edge/v1/search", {"query": "x", "collection": None}).status == 200


def test_our_own_routes_refuse_fields_that_they_do_not_know(box: Box) -> None:
    refusal(box.post("/edge/v1/search", {"query": "x", "colour": 1}), 400, "invalid_request", "colour")


def test_a_lone_surrogate_is_no_text(box: Box) -> None:
    body = b'{"model":"default","max_tokens":4,"messages":[{"role":"user","content":"\\ud800"}]}'
    refusal(box.post(CHAT, body), 400, "invalid_request")


def test_an_unknown_model_is_not_found(box: Box) -> None:
    refusal(box.post(CHAT, {**HELLO, "model": "gpt-9"}), 404, "model_not_found", "model")
    refusal(box.post("/v1/embeddings", {"model": "gpt-9", "input": "x"}), 404, "model_not_found", "model")
    refusal(box.get("/v1/models/gpt-9"), 404, "model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_refused_before_it_is_read(box: Box, stream: bool) -> None:
    reply = box.chat("word " * 20_000, stream=stream)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


def test_an_unknown_route_is_answered_in_json(box: Box) -> None:
    reply = box.get("/v1/engines")
    refusal(reply, 404, "not_found")
    logged(box, reply.headers["X-Request-Id"], 404)


def test_a_wrong_method_is_answered_with_the_right_one(box: Box) -> None:
    reply = box.get(CHAT)
    refusal(reply, 405, "method_not_allowed")
    assert reply.headers["Allow"] == "POST"
    logged(box, reply.headers["X-Request-Id"], 405)


def test_a_body_of_100_mb_is_refused_by_its_announcement(box: Box) -> None:
    with dial(box.socket) as connection:
        connection.sendall(b"POST /edge/v1/documents HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n{")
        head = connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 413")
    assert b'"request_too_large"' in head


def test_a_body_that_grows_past_the_limit_is_cut_off(box: Box) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with dial(box.socket) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                connection.sendall(chunk)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("sent", "route"),
    [
        (b"POST /v1/chat/comp", "unknown"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le", "unknown"),
        (b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model"', "chat"),
    ],
)
def test_half_a_request_and_then_silence_is_answered_and_closed(box: Box, sent: bytes, route: str) -> None:
    reply = exchange(box, sent)
    refusal(reply, 408, "request_timeout")
    logged(box, reply.headers["X-Request-Id"], 408, route)


def test_a_connection_that_says_nothing_is_closed_without_a_word(box: Box) -> None:
    with dial(box.socket) as connection:
        assert connection.recv(65536) == b""


_POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "code", "route"),
    [
        ([b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03 marmalade\r\n\r\n"], 400, "invalid_request", "unknown"),
        ([b"marmalade\r\n\r\n"], 400, "invalid_request", "unknown"),
        ([_POST + b"marm\x00alade: 1\r\n\r\n"], 400, "invalid_request", "unknown"),
        ([_POST + b"Content-Length: marmalade\r\n\r\n"], 400, "invalid_request", "unknown"),
        ([_POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"], 400, "invalid_request", "unknown"),
        ([_CHUNKED + b"marmalade\r\n"], 400, "invalid_request", "unknown"),
        ([_CHUNKED, b"marmalade\r\n"], 400, "invalid_request", "embeddings"),
        ([_CHUNKED + b"2\r\n{}", b"\r\nmarmalade\r\n"], 400, "invalid_request", "embeddings"),
        (
            [_POST + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n", b"marmalade"],
            *(400, "invalid_request", "embeddings"),
        ),
        ([_POST + b"X-A: " + b"marmalade" * 1000 + b"\r\n\r\n"], 431, "request_head_too_large", "unknown"),
        (
            [_POST + b"".join(b"X-%d: marmalade\r\n" % n for n in range(200)) + b"\r\n"],
            *(431, "request_head_too_large", "unknown"),
        ),
        (
            [b"GET /" + b"marmalade" * 500 + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
            *(414, "request_target_too_long", "unknown"),
        ),
        (
            [_POST + b"Expect: marmalade\r\nContent-Length: 2\r\n\r\n{}"],
            *(417, "expectation_failed", "unknown"),
        ),
    ],
)
def test_bytes_that_are_not_http_are_refused_unquoted(
    box: Box, sent: list[bytes], status: int, code: str, route: str
) -> None:
    reply = exchange(box, *sent)
    refusal(reply, status, code)
    logged(box, reply.headers["X-Request-Id"], status, route)
    assert b"marm" not in reply.body
    assert "marm" not in box.log


def test_a_client_that_stops_reading_its_stream_is_dropped(box: Box) -> None:
    body = {**HELLO, "max_tokens": 2000, "stream": True, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
    raw = json.dumps(body).encode()
    with dial(box.socket) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(raw)) + raw
        )
        box.wait(lambda: "client.stalled" in box.log)
    box.wait(lambda: box.get("/edge/v1/requests").json["requests"] == [], seconds=10)
    assert box.status()["requests_running"] == 0


def test_a_client_that_leaves_stops_the_work_behind_it(box: Box) -> None:
    stream = box.stream(CHAT, {**HELLO, "max_tokens": 3000, "stream": True, "ignore_eos": True})
    next(stream)
    assert box.status()["requests_running"] == 1
    stream.close()  # type: ignore[attr-defined]
    box.wait(lambda: box.status()["requests_running"] == 0)


def test_a_slow_listener_of_events_does_not_hold_up_the_box(box: Box) -> None:
    with dial(box.socket) as connection:
        connection.sendall(b"GET /edge/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200")
        for _ in range(300):
            assert box.get("/v1/models").status == 200


# ---- documents -----------------------------------------------------------------------------------------------------


PAPER = pdf([["The pump P9 is painted green."]])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.md", b"", "empty"),
        ("scan.pdf", pdf([None]), "scan"),
        ("locked.pdf", locked(PAPER, "x"), "encrypted"),
        ("cut.pdf", PAPER[: len(PAPER) // 2], "cut short"),
        ("bomb.pdf", bomb(2**30), "zip bomb"),
        ("image.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "not a text"),
        ("noise.txt", random.Random(1).randbytes(4096), "not a text"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_the_reason(
    box: Box, name: str, content: bytes, told: str
) -> None:
    before = box.get("/edge/v1/documents").json
    reply = box.add(name, content)
    message = refusal(reply, 422, "unreadable_document")
    assert name in message
    assert told in message
    assert box.get("/edge/v1/documents").json == before


def test_content_that_is_no_base64_is_refused(box: Box) -> None:
    reply = box.post("/edge/v1/documents", {"name": "x.md", "content": "not base64!"})
    refusal(reply, 400, "invalid_request", "content")


@pytest.mark.parametrize("collection", ["", "UPPER", "../x", "a" * 65])
def test_a_collection_with_an_impossible_name_is_refused(box: Box, collection: str) -> None:
    reply = box.add("x.md", b"# X\n\nText.\n", collection)
    refusal(reply, 400, "invalid_request", "collection")


@pytest.mark.parametrize(
    "query", ["", "?start=0", "?start=a&end=9", "?start=-1&end=9", "?start=9&end=1", "?start=0&end=9999999"]
)
def test_a_passage_needs_numbers_that_make_sense(box: Box, query: str) -> None:
    assert box.get(f"/edge/v1/documents/doc-none/text{query}").status == 400

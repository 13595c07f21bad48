"""What a careless or hostile client sends: each gets a clear error in OpenAI's shape, and the daemon goes on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import zlib
from collections.abc import Iterator
from typing import Any

import pypdf
import pytest

from models.store import Store
from tests.box import Box, dial, running

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


def refusal(reply: Any, status: int, code: str, param: str | None = None) -> str:
    """Checks an error's shape; its message."""
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"].startswith("application/json")
    assert set(reply.error) == {"message", "type", "code", "param"}
    assert (reply.error["code"], reply.error["param"]) == (code, param)
    message: str = reply.error["message"]
    assert message
    return message


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
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": [1]}, "stop[0]"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"logit_bias": {"word": 1}}, "logit_bias"),
        ({"edge": {"priority": "now"}}, "edge.priority"),
        ({"edge": {"colour": "red"}}, "edge.colour"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 3}, "top_logprobs"),
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


def test_fields_that_openai_knows_and_we_do_not_are_let_through(box: Box) -> None:
    assert box.post(CHAT, {**HELLO, "service_tier": "auto", "store": False}).status == 200


def test_our_own_routes_refuse_fields_that_they_do_not_know(box: Box) -> None:
    refusal(box.post("/edge/v1/search", {"query": "x", "colour": 1}), 400, "invalid_request", "colour")


def test_a_lone_surrogate_is_no_text(box: Box) -> None:
    body = b'{"model":"default","max_tokens":4,"messages":[{"role":"user","content":"\\ud800"}]}'
    assert box.post(CHAT, body).status in (200, 400)


def test_an_unknown_model_is_not_found(box: Box) -> None:
    refusal(box.post(CHAT, {**HELLO, "model": "gpt-9"}), 404, "model_not_found", "model")
    refusal(box.post("/v1/embeddings", {"model": "gpt-9", "input": "x"}), 404, "model_not_found", "model")
    refusal(box.get("/v1/models/gpt-9"), 404, "model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_refused_before_it_is_read(box: Box, stream: bool) -> None:
    reply = box.chat("word " * 20_000, stream=stream)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


def test_an_unknown_route_is_answered_in_json(box: Box) -> None:
    refusal(box.get("/v1/engines"), 404, "not_found")


def test_a_wrong_method_is_answered_with_the_right_one(box: Box) -> None:
    reply = box.get(CHAT)
    refusal(reply, 405, "method_not_allowed")
    assert reply.headers["Allow"] == "POST"


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
    "sent",
    [
        b"POST /v1/chat/completions HTT",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le",
        b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model"',
    ],
)
def test_half_a_request_and_then_silence_is_closed(box: Box, sent: bytes) -> None:
    with dial(box.socket) as connection:
        connection.sendall(sent)
        reply = b""
        while part := connection.recv(65536):
            reply += part
    if b"Content-Length: 100" in sent:
        assert reply.startswith(b"HTTP/1.1 408")
        assert b'"request_timeout"' in reply
    else:
        assert reply == b""


def test_bytes_that_are_not_http_are_refused(box: Box) -> None:
    with dial(box.socket) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 secret words\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.")
    assert "secret words" not in box.log


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


def pdf(*, password: str | None = None) -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    if password is not None:
        writer.encrypt(password, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def bomb() -> bytes:
    """A PDF of one page whose content is a gigabyte of spaces, deflated twice."""
    squeezer = zlib.compressobj(9)
    once = b"".join([squeezer.compress(b" " * 2**20) for _ in range(1024)]) + squeezer.flush()
    twice = zlib.compress(once, 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>",
        b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n" % len(twice) + twice + b"\nendstream",
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(out) + b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % table


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.md", b"", "empty"),
        ("scan.pdf", pdf(), "scan"),
        ("locked.pdf", pdf(password="x"), "encrypted"),
        ("cut.pdf", pdf()[:300], ""),
        ("bomb.pdf", bomb(), ""),
        ("image.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, ""),
        ("noise.txt", os.urandom(4096), ""),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_the_reason(
    box: Box, name: str, content: bytes, told: str
) -> None:
    before = box.get("/edge/v1/documents").json
    reply = box.add(name, content)
    assert (reply.status, reply.error["code"]) in ((422, "unreadable_document"), (413, "request_too_large"))
    assert name in reply.error["message"] or told in reply.error["message"].lower()
    assert told in reply.error["message"].lower()
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


def test_a_full_disk_refuses_new_documents_and_loses_no_old_one(box: Box) -> None:
    assert box.add("kept.md", b"# Kept\n\nThe kept pump is green.\n").status == 200
    before = box.get("/edge/v1/documents").json
    assert box.process is not None
    unlimited = resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE)
    # The kernel refuses what goes past this size as a full disk would: it fails in the middle of a transaction.
    resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (4 * 2**20, unlimited[1]))
    try:
        reply = box.add("new.md", b"# New\n\n" + b"The new pump is red. It hums at night.\n" * 30_000)
        refusal(reply, 507, "storage")
        assert box.chat().status == 200
    finally:
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, unlimited)
    assert box.get("/edge/v1/documents").json == before
    assert box.post("/edge/v1/search", {"query": "kept pump"}).json["hits"][0]["document"] == "kept.md"
    assert box.add("new.md", b"# New\n\nThe new pump is red.\n").status == 200

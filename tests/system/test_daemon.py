"""One real ``edged`` with the small writer: every route, and that none of a request's text is logged."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from edge_runtime import knowledge_protocol, openai_protocol, protocol
from edge_runtime.daemon.openapi import describe
from edge_runtime.daemon.routes import ROUTES
from models.store import Store
from tests.box import Box, running

CHAT = "/v1/chat/completions"
MANUAL = b"""# Pump P9

## Alarms

Alarm E42 means that the float switch is stuck. Pump P9 stops by itself when alarm E42 appears.

## Torque

The gland bolts of pump P9 are tightened to 12 Nm.
"""
GREEDY = {"model": "default", "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


@pytest.fixture(scope="module")
def manual(box: Box) -> knowledge_protocol.Document:
    reply = box.add("pump-p9.md", MANUAL)
    assert reply.status == 200, reply.body
    return msgspec.json.decode(reply.body, type=knowledge_protocol.DocumentAdded).document


def test_it_comes_up_sealed_with_both_children_ready(box: Box) -> None:
    status = msgspec.json.decode(box.get("/edge/v1/status").body, type=protocol.Status)
    assert status.ready
    assert status.seal == protocol.SealStatus(
        sealed=True, seccomp=True, landlock_abi=status.seal.landlock_abi, missing=[]
    )
    assert [(child.name, child.state, child.restarts) for child in status.children] == [
        ("engine", "ready", 0),
        ("embedder", "ready", 0),
    ]
    assert (status.writer, status.embedder) == ("smollm2-135m-instruct", "all-minilm-l6-v2-int8")
    assert status.socket == str(box.socket)
    assert box.get("/healthz").json["status"] == box.get("/readyz").json["status"] == "ok"


def test_every_way_out_that_the_sealed_processes_try_is_refused(box: Box) -> None:
    proof = msgspec.json.decode(box.post("/edge/v1/probe").body, type=protocol.SealProof)
    assert {attempt.process for attempt in proof.attempts} == {"edged", "engine", "embedder"}
    assert not [attempt for attempt in proof.attempts if not attempt.refused]


# ---- OpenAI's routes -----------------------------------------------------------------------------------------------


def test_a_chat_answers_in_openai_s_shape(box: Box) -> None:
    reply = box.chat(max_tokens=8)
    completion = msgspec.json.decode(reply.body, type=openai_protocol.ChatCompletion)
    (choice,) = completion.choices
    assert completion.model == "smollm2-135m-instruct"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert reply.headers["X-Request-Id"] == completion.id


def test_a_stream_says_the_same_as_the_whole_reply(box: Box) -> None:
    body = {**GREEDY, "messages": [{"role": "user", "content": "Count to five."}]}
    whole = box.post(CHAT, body).json
    events = list(box.stream(CHAT, {**body, "stream": True, "stream_options": {"include_usage": True}}))
    assert events[-1].data == "[DONE]"
    chunks = [msgspec.json.decode(event.data, type=openai_protocol.ChatChunk) for event in events[:-1]]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole["choices"][0]["finish_reason"]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], msgspec.convert(whole["usage"], openai_protocol.Usage))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole["choices"][0]["message"]["content"]


def test_a_seed_repeats_a_sampled_reply(box: Box) -> None:
    first, second = (box.chat("Tell me a story.", seed=7, temperature=1.0, max_tokens=12).json for _ in range(2))
    assert first["choices"] == second["choices"]


def test_a_stop_string_ends_the_text_before_it(box: Box) -> None:
    body = {**GREEDY, "prompt": "1, 2, 3, 4, 5,", "stop": [" 9"], "max_tokens": 32}
    choice = box.post("/v1/completions", body).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert " 9" not in choice["text"]


def test_log_probabilities_come_with_their_alternatives(box: Box) -> None:
    reply = box.chat(logprobs=True, top_logprobs=3, temperature=0, max_tokens=4).json
    content = reply["choices"][0]["logprobs"]["content"]
    assert content
    for token in content:
        assert token["logprob"] <= 0
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] == pytest.approx(max(top["logprob"] for top in token["top_logprobs"]), abs=1e-3)


def test_a_completion_can_echo_its_prompt_and_stream_it(box: Box) -> None:
    body = {**GREEDY, "prompt": "The first primes are", "echo": True}
    whole = box.post("/v1/completions", body).json["choices"][0]["text"]
    events = list(box.stream("/v1/completions", {**body, "stream": True}))
    assert whole.startswith("The first primes are")
    assert "".join(event.json["choices"][0]["text"] for event in events[:-1]) == whole


def test_embeddings_are_unit_vectors_in_both_encodings(box: Box) -> None:
    body = {"model": "default", "input": ["pump", "a longer text about valves"]}
    floats = [item["embedding"] for item in box.post("/v1/embeddings", body).json["data"]]
    packed = box.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json["data"]
    decoded = [struct.unpack("<384f", base64.b64decode(item["embedding"])) for item in packed]
    assert floats == [pytest.approx(row) for row in decoded]
    assert all(sum(value * value for value in row) == pytest.approx(1, abs=1e-3) for row in floats)


def test_the_models_that_a_request_may_name_are_listed_and_shown(box: Box) -> None:
    names = [card["id"] for card in box.get("/v1/models").json["data"]]
    assert names[0] == "smollm2-135m-instruct"
    assert "all-minilm-l6-v2-int8" in names
    assert box.get(f"/v1/models/{names[0]}").json["id"] == names[0]
    assert box.get("/v1/models/default").json == {**box.get(f"/v1/models/{names[0]}").json, "id": "default"}
    assert "default" not in names
    assert box.get("/v1/models/default:none").status == 404


# ---- documents and questions ---------------------------------------------------------------------------------------


def test_a_document_is_listed_shown_and_found(box: Box, manual: knowledge_protocol.Document) -> None:
    listed = msgspec.json.decode(box.get("/edge/v1/documents").body, type=knowledge_protocol.DocumentList)
    assert manual in listed.documents
    assert box.get(f"/edge/v1/documents/{manual.id}").json["name"] == "pump-p9.md"
    for mode in ("hybrid", "lexical", "dense"):
        hits = box.post("/edge/v1/search", {"query": "float switch alarm E42", "mode": mode, "k": 1}).json["hits"]
        assert "float switch" in hits[0]["text"]


def test_the_same_bytes_again_change_nothing(box: Box, manual: knowledge_protocol.Document) -> None:
    again = box.add("pump-p9.md", MANUAL).json
    assert (again["unchanged"], again["document"]["id"]) == (True, manual.id)


def test_an_answer_quotes_its_document_word_for_word(box: Box, manual: knowledge_protocol.Document) -> None:
    body = {"question": "What does alarm E42 mean?", "mode": "extract"}
    answer = msgspec.json.decode(box.post("/edge/v1/ask", body).body, type=knowledge_protocol.Answer)
    assert answer.grounded
    assert "float switch is stuck" in answer.answer
    first = answer.citations[0]
    place = f"/edge/v1/documents/{first.document_id}/text?start={first.locator.start}&end={first.locator.end}"
    assert box.get(place).json["text"] == first.quote
    assert box.get(f"/edge/v1/ask/{answer.id}").json == json.loads(msgspec.json.encode(answer))


def test_a_streamed_answer_gives_sources_then_sentences_then_all_of_it(
    box: Box, manual: knowledge_protocol.Document
) -> None:
    events = list(box.stream("/edge/v1/ask", {"question": "What does alarm E42 mean?", "stream": True}))
    names = [event.name for event in events]
    assert names[0] == "sources"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"sentence"}
    assert {event.json["id"] for event in (events[0], events[-1])} == {events[0].json["id"]}


def test_a_question_has_its_deadline(box: Box, manual: knowledge_protocol.Document) -> None:
    body = {"question": "What does alarm E42 mean?", "mode": "extract"}
    assert box.post("/edge/v1/ask", {**body, "edge": {"deadline_ms": 60_000, "priority": "batch"}}).status == 200
    assert box.post("/edge/v1/ask", {**body, "edge": {"deadline_ms": 0}}).error["param"] == "edge.deadline_ms"
    reply = box.post("/edge/v1/ask", {**body, "edge": {"deadline_ms": 1}})
    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")


def test_a_deadline_costs_the_phrasing_of_a_streamed_answer_where_the_engine_stands_still(
    box: Box, manual: knowledge_protocol.Document
) -> None:
    engine = box.child("engine")["pid"]
    os.kill(engine, signal.SIGSTOP)
    body = {"question": "What does alarm E42 mean?", "stream": True, "edge": {"deadline_ms": 1500}}
    events = list(box.stream("/edge/v1/ask", body))
    os.kill(engine, signal.SIGCONT)
    assert [event.name for event in events] == ["sources", "sentence", "done"]
    assert events[-1].json["model"] is None


def test_an_unknown_collection_is_not_found_and_the_known_ones_are_named(
    box: Box, manual: knowledge_protocol.Document
) -> None:
    box.post("/edge/v1/collections", {"name": "night-shift"})
    for path, field in (("/edge/v1/ask", "question"), ("/edge/v1/search", "query")):
        reply = box.post(path, {field: "pump", "collection": "day-shift"})
        assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "not_found", "collection")
        assert reply.error["message"].endswith("those are: default, night-shift")
        assert box.post(path, {field: "pump", "collection": "night-shift"}).status == 200


def test_feedback_is_taken_for_an_answer_that_was_given(box: Box, manual: knowledge_protocol.Document) -> None:
    answer = box.post("/edge/v1/ask", {"question": "What does alarm E42 mean?", "mode": "extract"}).json
    body = {"answer_id": answer["id"], "verdict": "good", "hit": 0}
    assert box.post("/edge/v1/feedback", body).status == 200
    assert box.post("/edge/v1/feedback", {**body, "hit": 99}).error["param"] == "hit"
    assert box.post("/edge/v1/feedback", {**body, "answer_id": "req-none"}).status == 404


def test_removing_a_document_purges_what_was_derived_from_it(box: Box) -> None:
    document = box.add("gone.md", b"# Valve V8\n\nValve V8 is painted orange.\n").json["document"]["id"]
    answer = box.post("/edge/v1/ask", {"question": "Which colour is valve V8?", "mode": "extract"}).json
    assert answer["citations"]
    snapshot = box.home / "snapshots" / "kv"
    snapshot.write_bytes(b"derived")
    removed = msgspec.json.decode(box.delete(f"/edge/v1/documents/{document}").body, type=knowledge_protocol.Removed)
    assert removed.removed == [document]
    assert removed.purged["chunks"] >= 1
    assert removed.purged["vectors"] >= 1
    assert (removed.purged["answers"], removed.purged["snapshots"]) == (1, 1)
    assert not snapshot.exists()
    assert box.get(f"/edge/v1/ask/{answer['id']}").status == 404
    assert box.get(f"/edge/v1/documents/{document}").status == 404
    assert box.delete(f"/edge/v1/documents/{document}").status == 404


def test_a_new_version_of_a_document_forgets_answers_from_the_old_one(box: Box) -> None:
    box.add("colour.md", b"# Valve V9\n\nValve V9 is painted purple.\n")
    answer = box.post("/edge/v1/ask", {"question": "Which colour is valve V9?", "mode": "extract"}).json
    assert box.add("colour.md", b"# Valve V9\n\nValve V9 is painted white.\n").status == 200
    assert box.get(f"/edge/v1/ask/{answer['id']}").status == 404


# ---- for the operator ----------------------------------------------------------------------------------------------


def test_events_tell_what_happens(box: Box) -> None:
    stream = box.stream("/edge/v1/events")
    seen: list[Any] = []
    reader = threading.Thread(
        target=lambda: seen.append(next(event for event in stream if event.name == "document.added"))
    )
    reader.start()
    box.wait(lambda: "edge_event_listeners 1" in box.get("/metrics").body.decode())
    document = box.add("told.md", b"# Told\n\nThis is told.\n").json["document"]["id"]
    reader.join(30)
    stream.close()  # type: ignore[attr-defined]
    event = msgspec.json.decode(seen[0].data, type=protocol.Event)
    assert (event.kind, event.fields["document"]) == ("document.added", document)


def test_a_running_request_is_listed_and_can_be_cancelled(box: Box) -> None:
    body = {**GREEDY, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 3000, "ignore_eos": True}
    stream = box.stream(CHAT, {**body, "stream": True})
    next(stream)
    (entry,) = msgspec.json.decode(box.get("/edge/v1/requests").body, type=protocol.RequestList).requests
    assert (entry.kind, entry.priority, entry.state) == ("chat", "interactive", "running")
    assert box.delete(f"/edge/v1/requests/{entry.id}").status == 200
    last = list(stream)[-1].json
    assert last["error"]["code"] == "cancelled"
    assert box.delete(f"/edge/v1/requests/{entry.id}").status == 404
    box.wait(lambda: box.status()["requests_running"] == 0)


def test_a_deadline_that_passes_is_said(box: Box) -> None:
    body = {**GREEDY, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 3000, "ignore_eos": True}
    reply = box.post(CHAT, {**body, "edge": {"deadline_ms": 50}})
    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")


def test_metrics_count_requests_tokens_and_refusals(box: Box) -> None:
    box.chat()
    box.post(CHAT, b"{")
    text = box.get("/metrics").body.decode()
    for part in (
        'edge_requests_total{route="chat",status="200"}',
        'edge_refusals_total{code="invalid_request"}',
        'edge_request_seconds_bucket{route="chat",le="+Inf"}',
        'edge_time_to_first_token_seconds_count{class="interactive",route="chat"}',
        'edge_inter_token_seconds_count{class="interactive",route="chat"}',
        'edge_queue_depth{class="batch",',
        'edge_engine_cells{model="smollm2-135m-instruct",state="used"}',
        "edge_prefilled_tokens_total",
        'edge_tokens_total{direction="written"}',
        "edge_ready 1",
        'edge_child_ready{child="engine"} 1',
    ):
        assert part in text


def test_every_route_is_described_and_every_example_is_valid(box: Box) -> None:
    described = box.get("/openapi.json").json
    assert described == json.loads(msgspec.json.encode(describe(ROUTES)))
    assert {(path, method) for path, methods in described["paths"].items() for method in methods} == {
        (route.path, route.method.lower()) for route in ROUTES
    }
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        assert operation["security"] == [{}, {"token": []}]
        assert ("requestBody" in operation) == (route.body is not None)
        if route.body is not None:
            example = operation["requestBody"]["content"]["application/json"]["example"]
            assert msgspec.convert(example, route.body) == route.example
    own = described["paths"]["/openapi.json"]["get"]["responses"]["200"]["content"]
    assert (set(own), box.get("/openapi.json").headers["Content-Type"]) == ({"application/json"}, "application/json")
    names = set(described["components"]["schemas"])
    references = {part.split('"')[0] for part in json.dumps(described).split("#/components/schemas/")[1:]}
    assert references <= names


def test_a_backup_holds_both_databases_and_the_configuration(box: Box, manual: knowledge_protocol.Document) -> None:
    reply = msgspec.json.decode(box.post("/edge/v1/backup", {"name": "one"}).body, type=protocol.BackupReply)
    assert sorted(reply.files) == ["edge.toml", "index.db", "journal.db"]
    assert reply.path == str(box.home / "backups" / "one.tar")
    assert box.post("/edge/v1/backup", {"name": "one"}).error["code"] == "refused"
    assert box.post("/edge/v1/backup", {"name": "../one"}).error["param"] == "name"
    assert sorted(path.name for path in (box.home / "backups").iterdir()) == ["one.tar"]


def test_the_log_has_one_line_a_request_and_none_of_its_text(box: Box) -> None:
    secrets = ("marmalade", "quincunx", "xylograph")
    box.chat(f"Say {secrets[0]}.")
    box.add(f"{secrets[1]}.md", f"# {secrets[1]}\n\nThe {secrets[1]} is here.\n".encode())
    box.post("/edge/v1/ask", {"question": f"Where is the {secrets[2]}?", "mode": "extract"})
    box.post(CHAT, f'{{"model": "{secrets[0]}", "messages": 1}}'.encode())
    box.post("/edge/v1/search", {"query": secrets[2]})
    last = box.get("/v1/models").headers["X-Request-Id"]
    box.wait(lambda: last in box.log)
    lines = [json.loads(line) for line in box.log.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert len({line["id"] for line in requests}) == len(requests)
    assert set(requests[-1]) == {
        *("at", "level", "event", "id", "peer", "route", "status", "ms", "tokens_in", "tokens_out")
    }
    assert not [secret for secret in secrets if secret in box.log]

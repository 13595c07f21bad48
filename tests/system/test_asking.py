"""Questions for several things to one real ``edged``: assemblies, prefixes that are read once, filters, and a flood."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from edge_runtime.config import KnowledgeConfig
from models.store import Store
from tests.box import Box, dial, running

ALARMS = b"""# Alarms of boiler B7

Boiler B7 has a panel of its own, and each of its alarms appears there with a code and a lamp of its own.

Alarm E41 of boiler B7 means that the flame went out, and it stops the burner at once until it is reset by hand.

Alarm E42 of boiler B7 means that the float switch is stuck, and it stops the feed pump until somebody frees it.

Alarm E43 of boiler B7 means that the flue gas is too hot, and it stops the burner after thirty seconds of warning.

Alarm E44 of boiler B7 means that the door of the boiler house stands open, and it stops nothing but rings the bell.
"""
LISTED = "Which alarms of boiler B7 stop the burner or the pump?"
OTHER = "Which alarms of boiler B7 ring the bell of the boiler house?"


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        assert started.add("boiler.md", ALARMS).status == 200
        assert started.add("garden.md", b"# Garden\n\nThe garden of the boiler house has three trees.\n").status == 200
        yield started


def ask(box: Box, question: str, **fields: Any) -> dict[str, Any]:
    reply = box.post("/edge/v1/ask", {"question": question, **fields})
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json
    for citation in answer["citations"]:
        where = citation["locator"]
        place = f"/edge/v1/documents/{citation['document_id']}/text?start={where['start']}&end={where['end']}"
        assert box.get(place).json["text"] == citation["quote"]
    return answer


def prompt_tokens(box: Box) -> tuple[int, int]:
    """Prompt tokens that were there before, and those that were read."""
    text = box.get("/metrics").body.decode()
    cached, read = (
        sum(float(number) for number in re.findall(rf"^edge_{name}_tokens_total(?:{{.*}})? (.+)$", text, re.MULTILINE))
        for name in ("cached", "prefilled")
    )
    return int(cached), int(read)


@pytest.mark.parametrize("assembly", ["stuff", "map-reduce", "refine"])
def test_each_assembly_answers_with_quotes_of_the_document_and_says_what_it_took(box: Box, assembly: str) -> None:
    quoted = ask(box, LISTED, mode="extract")
    answer = ask(box, LISTED, assembly=assembly)
    assert (answer["assembly"], answer["grounded"], answer["model"]) == (assembly, True, None)
    assert answer["calls"] >= 1
    assert answer["answer"].startswith(quoted["answer"])
    told = ALARMS.decode().replace("\n", " ")
    assert all(line in told for line in answer["answer"].splitlines())


def test_a_second_question_about_the_same_passages_finds_them_read(box: Box) -> None:
    ask(box, LISTED, assembly="stuff")
    before = prompt_tokens(box)
    ask(box, OTHER, assembly="stuff")
    cached, read = (now - then for now, then in zip(prompt_tokens(box), before, strict=True))
    # Rules and passages are there; the question is not, nor what a whole block of 64 tokens shares with it.
    assert cached > 2 * read
    assert cached >= len(ALARMS) // 5


def test_a_streamed_list_gives_its_quotes_at_once_and_ends_with_all_of_it(box: Box) -> None:
    events = list(box.stream("/edge/v1/ask", {"question": LISTED, "assembly": "refine", "stream": True}))
    names = [event.name for event in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("sources", "done", {"sentence"})
    sources, answer = events[0].json["citations"], events[-1].json
    said = [event.json for event in events[1:-1]]
    assert answer["answer"].splitlines() == [one["text"] for one in said]
    assert all(
        sources[at]["quote"] in {one["quote"] for one in answer["citations"]} for one in said for at in one["citations"]
    )


def test_a_filter_goes_through_to_the_search(box: Box) -> None:
    answer = ask(box, LISTED, filter={"documents": ["garden.md"]}, mode="extract")
    assert {one["document"] for one in answer["citations"]} <= {"garden.md"}
    assert not answer["grounded"]
    reply = box.post("/edge/v1/ask", {"question": LISTED, "filter": {"since": "yesterday"}})
    assert (reply.status, reply.error["param"]) == (400, "filter.since")


def _send(box: Box, path: str, body: dict[str, Any]) -> socket.socket:
    raw = json.dumps(body).encode()
    connection = dial(box.socket)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: edged\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return connection


def test_one_question_too_many_is_told_when_to_come_back_and_one_that_leaves_frees_its_place(box: Box) -> None:
    embedder = box.child("embedder")["pid"]
    os.kill(embedder, signal.SIGSTOP)
    try:
        waiting = [_send(box, "/edge/v1/ask", {"question": LISTED}) for _ in range(KnowledgeConfig().questions - 1)]
        waiting.append(_send(box, "/edge/v1/search", {"query": "boiler"}))
        box.wait(lambda: len(box.get("/edge/v1/requests").json["requests"]) >= len(waiting))
        for path, body in (("/edge/v1/ask", {"question": LISTED}), ("/edge/v1/search", {"query": "boiler"})):
            reply = box.post(path, body)
            assert (reply.status, reply.error["code"]) == (429, "busy")
            assert int(reply.headers["Retry-After"]) >= 1
        for connection in waiting:
            connection.close()
        box.wait(lambda: len(box.get("/edge/v1/requests").json["requests"]) < len(waiting))
        late = box.post("/edge/v1/ask", {"question": LISTED, "edge": {"deadline_ms": 200}})
        assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
    finally:
        os.kill(embedder, signal.SIGCONT)
    assert ask(box, LISTED, mode="extract")["grounded"]

"""More than the engine can take, and an engine that dies or hangs: nobody is forgotten, and nothing comes twice."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from models.store import Store
from tests.box import PATIENCE, Box, Reply, running

CHAT = "/v1/chat/completions"
EXACT = {"edge": {"deterministic": True}}


def body(text: str, tokens: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "default", "messages": messages, "max_tokens": tokens, "ignore_eos": True, **fields}


class Background(threading.Thread):
    """One request that is waited for later."""

    def __init__(self, box: Box, asked: dict[str, Any]) -> None:
        super().__init__()
        self._box = box
        self._asked = asked
        self._reply: Reply | None = None
        self.start()

    def run(self) -> None:
        self._reply = self._box.post(CHAT, self._asked)

    @property
    def reply(self) -> Reply:
        self.join(PATIENCE)
        assert self._reply is not None
        return self._reply


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    text: str = reply.json["choices"][0]["message"]["content"]
    return text


class Flood(threading.Thread):
    """Asks for embeddings again and again, whatever the answer, until told to stop."""

    def __init__(self, box: Box, over: threading.Event) -> None:
        super().__init__()
        self._box, self._over = box, over
        self.replies: list[Reply] = []
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            self.replies.append(self._box.post("/v1/embeddings", {"model": "default", "input": ["A short text."] * 12}))


def back(box: Box, restarts: int) -> bool:
    """Whether the engine is ready after so many restarts: both of one look, for between two it may die."""
    engine = box.child("engine")
    return (engine["state"], engine["restarts"]) == ("ready", restarts)


def told(events: Any) -> list[dict[str, Any]]:
    return [event.json for event in events if event.data != "[DONE]"]


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


def test_an_engine_killed_under_load_costs_no_request_and_no_token_comes_twice(box: Box) -> None:
    whole = box.post(CHAT, body("Count from one to fifty.", 60, **EXACT))
    stream = box.stream(CHAT, body("Count from one to fifty.", 60, **EXACT, stream=True))
    begun = [next(stream) for _ in range(12)]
    others = [Background(box, body(f"Tell story {number}.", 24)) for number in range(20)]
    box.wait(lambda: box.status()["requests_waiting"] + box.status()["requests_running"] == 21)
    restarts = box.child("engine")["restarts"]
    killed = box.kill_engine()
    chunks = told([*begun, *stream])
    assert "error" not in chunks[-1]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text_of(whole)
    for other in others:
        text_of(other.reply)
        assert other.reply.json["usage"]["completion_tokens"] == 24
    engine = box.child("engine")
    assert (engine["state"], engine["restarts"]) == ("ready", restarts + 1)
    assert engine["pid"] != killed


def test_a_request_that_sees_two_engines_die_is_told_so_and_not_tried_again(box: Box) -> None:
    stream = box.stream(CHAT, body("Go on.", 2000, stream=True))
    next(stream)
    restarts = box.child("engine")["restarts"]
    for death in (1, 2):
        box.kill_engine()
        box.wait(functools.partial(back, box, restarts + death))
    error = told(stream)[-1]["error"]
    assert error["code"] == "engine_unavailable"
    assert "signal 9" in error["message"]
    assert box.chat(max_tokens=2).status == 200


def test_an_engine_that_hangs_is_killed_and_its_request_goes_on(shared_store: Store) -> None:
    with running(shared_store.root, "silence_seconds = 4.0\n") as box:
        stream = box.stream(CHAT, body("Go on.", 40, stream=True))
        begun = [next(stream) for _ in range(3)]
        os.kill(box.child("engine")["pid"], signal.SIGSTOP)
        chunks = told([*begun, *stream])
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert box.child("engine")["restarts"] == 1
        assert '"event": "child.hangs"' in box.log


def test_a_deadline_that_cannot_be_met_is_refused_before_anything_is_done(box: Box) -> None:
    assert text_of(box.post(CHAT, body("Warm up.", 8)))
    late = box.post(CHAT, body("Tell me everything.", 3000, edge={"deadline_ms": 100}))
    assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
    assert "this would take about" in late.error["message"]
    assert 'edge_admission_refusals_total{class="interactive",reason="deadline"} 1' in box.get("/metrics").body.decode()


def test_several_texts_after_one_prompt_come_side_by_side(box: Box) -> None:
    asked = body("Name a colour.", 6, n=3, seed=11, temperature=1.2)
    reply = box.post(CHAT, asked).json
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert reply["usage"]["completion_tokens"] == 18
    assert len({choice["message"]["content"] for choice in reply["choices"]}) > 1
    chunks = told(box.stream(CHAT, {**asked, "stream": True, "stream_options": {"include_usage": True}}))
    ends = [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert sorted(chunk["choices"][0]["index"] for chunk in ends) == [0, 1, 2]
    assert ["edge" in chunk for chunk in ends] == [False, False, True]
    assert chunks[-1]["usage"]["completion_tokens"] == 18
    plain = box.post("/v1/completions", {"model": "default", "prompt": "Red,", "n": 2, "max_tokens": 3, "echo": True})
    assert [choice["text"].startswith("Red,") for choice in plain.json["choices"]] == [True, True]
    refused = box.chat(n=9)
    assert (refused.status, refused.error["param"]) == (400, "n")


def test_choices_are_scored_after_a_shared_prompt(box: Box) -> None:
    system = {"role": "system", "content": "Say whether the review is positive or negative."}
    asked = {"messages": [system, {"role": "user", "content": "I love it, it is wonderful!"}]}
    reply = box.post("/edge/v1/score", {**asked, "choices": ["positive", "negative"]}).json
    assert sum(choice["probability"] for choice in reply["choices"]) == pytest.approx(1.0)
    assert (reply["choices"][reply["best"]]["text"], reply["calibrated"]) == ("positive", True)
    assert all(choice["logprob"] < 0 < choice["tokens"] for choice in reply["choices"])
    for wrong, param in (
        ({"choices": ["a", "a"]}, "choices[1]"),
        ({"choices": []}, "choices"),
        ({"choices": ["a"], "prompt": "x"}, "prompt"),
    ):
        refused = box.post("/edge/v1/score", {**asked, **wrong})
        assert (refused.status, refused.error["param"]) == (400, param)


def test_ten_times_too_many_are_refused_with_when_to_come_back_and_the_admitted_are_served(
    shared_store: Store,
) -> None:
    with running(shared_store.root, "slots = 2\nqueue = 4\n") as box:
        assert box.chat(max_tokens=4).status == 200
        replies = [one.reply for one in [Background(box, body(f"Say {number}.", 24)) for number in range(60)]]
        served = [reply for reply in replies if reply.status == 200]
        refused = [reply for reply in replies if reply.status == 429]
        assert len(served) >= 6
        assert len(served) + len(refused) == 60
        assert all(reply.json["usage"]["completion_tokens"] == 24 for reply in served)
        assert all(reply.error["code"] == "busy" for reply in refused)
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
        listed = box.get("/edge/v1/engine").json
        assert listed["refused"] == {"queue_full": len(refused)}
        assert listed["requests"] == []


def test_a_flood_of_batch_work_leaves_room_for_people_who_are_served_first(shared_store: Store) -> None:
    with running(shared_store.root, "slots = 1\nqueue = 8\n") as box:
        assert box.chat(max_tokens=4).status == 200
        batch = {"edge": {"priority": "batch"}}
        flood = [Background(box, body(f"Tell story {number}.", 32, **batch)) for number in range(6)]
        box.wait(lambda: box.status()["requests_waiting"] + box.status()["requests_running"] == 6)
        assert box.post(CHAT, body("One more.", 4, **batch)).status == 429
        assert box.post(CHAT, body("Which valve?", 4)).status == 200
        listed = box.get("/edge/v1/requests").json["requests"]
        assert {one["priority"] for one in listed} == {"batch"}
        assert len(listed) >= 4
        assert [one.reply.status for one in flood] == [200] * 6


def test_a_flood_of_embeddings_is_refused_in_part_and_streams_and_questions_go_on_beside_it(
    shared_store: Store,
) -> None:
    with running(shared_store.root, "embeddings = 4\n") as box:
        assert box.add("pump.txt", b"The red pump has 17 bolts. The blue pump has 4 bolts.\n").status == 200
        asked = {"question": "How many bolts has the red pump?", "mode": "extract"}
        over = threading.Event()
        flood = [Flood(box, over) for _ in range(16)]
        try:
            box.wait(lambda: any(reply.status == 429 for one in flood for reply in one.replies))
            stream = box.stream(CHAT, body("Tell a story.", 60, stream=True))
            begun = [next(stream) for _ in range(3)]
            answers = [box.post("/edge/v1/ask", asked) for _ in range(12)]
            chunks = told([*begun, *stream])
        finally:
            over.set()
            for one in flood:
                one.join(PATIENCE)
        assert [answer.status for answer in answers] == [200] * 12
        assert all("17" in answer.json["answer"] for answer in answers)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        replies = [reply for one in flood for reply in one.replies]
        refused = [reply for reply in replies if reply.status == 429]
        assert {reply.status for reply in replies} == {200, 429}
        assert {reply.error["code"] for reply in refused} == {"busy"}
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
        assert box.get("/edge/v1/engine").json["refused"] == {"queue_full": len(refused)}
        assert box.post("/v1/embeddings", {"model": "default", "input": "after it"}).status == 200

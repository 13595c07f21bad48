"""Adapters through the socket: added, chosen by each request, and there again after the engine died."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from models.store import Store
from tests.box import Box, Reply, running
from tests.conftest import SMALL_WRITER
from tests.edge_runtime import adapter_files as files

PROMPT = "The pump is loud because"


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


def complete(box: Box, model: str = "default", **edge: Any) -> str:
    body: dict[str, Any] = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    reply = box.request("POST", "/v1/completions", {**body, "edge": edge} if edge else body)
    assert reply.status == 200, reply.body
    text: str = reply.json["choices"][0]["text"]
    return text


def add(box: Box, name: str, content: bytes) -> Reply:
    body = {"name": name, "content": base64.b64encode(content).decode()}
    return box.request("POST", "/edge/v1/adapters", body)


def test_each_request_writes_with_the_adapter_that_it_names(box: Box) -> None:
    plain = complete(box)
    assert add(box, "one", files.small_adapter()).status == 200
    assert add(box, "two", files.small_adapter(seed=2)).status == 200
    one, two = complete(box, "default:one"), complete(box, SMALL_WRITER, adapter="two")
    assert len({plain, one, two}) == 3
    assert complete(box) == plain
    assert complete(box, adapter="one") == one
    listed = {model["id"] for model in box.get("/v1/models").json["data"]}
    assert {SMALL_WRITER, f"{SMALL_WRITER}:one", f"{SMALL_WRITER}:two"} <= listed
    assert box.get("/v1/models/default:one").json["id"] == "default:one"
    assert {one["base_installed"] for one in box.get("/edge/v1/adapters").json["adapters"]} == {True}


def test_an_adapter_is_attached_again_after_the_engine_died(box: Box) -> None:
    assert add(box, "one", files.small_adapter()).status == 200
    before = complete(box, adapter="one")
    (engine,) = [child for child in box.get("/edge/v1/status").json["children"] if child["name"] == "engine"]
    os.kill(engine["pid"], signal.SIGKILL)
    box.wait(lambda: box.get("/readyz").status == 200)
    assert complete(box, adapter="one") == before


def test_a_removed_adapter_is_refused_and_one_that_comes_under_its_name_is_another(box: Box) -> None:
    assert add(box, "three", files.small_adapter(seed=3)).status == 200
    first = complete(box, adapter="three")
    assert box.request("DELETE", "/edge/v1/adapters/three").json["removed"] == "three"
    refused = box.request("POST", "/v1/completions", {"model": "default:three", "prompt": PROMPT})
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert add(box, "three", files.small_adapter(seed=4)).status == 200
    assert complete(box, adapter="three") != first


def test_a_text_that_is_being_written_outlives_the_removal_of_its_adapter(box: Box) -> None:
    assert add(box, "five", files.small_adapter(seed=6)).status == 200
    body = {"model": "default:five", "prompt": PROMPT, "max_tokens": 150, "ignore_eos": True, "temperature": 0}
    engines = [child["pid"] for child in box.get("/edge/v1/status").json["children"]]
    events = box.stream("/v1/completions", {**body, "stream": True})
    next(events)
    assert box.request("DELETE", "/edge/v1/adapters/five").status == 200
    *_, last, end = events
    assert (last.json["choices"][0]["finish_reason"], end.data) == ("length", "[DONE]")
    assert add(box, "five", files.small_adapter(seed=6)).status == 200
    assert complete(box, adapter="five")
    assert [child["pid"] for child in box.get("/edge/v1/status").json["children"]] == engines


@pytest.mark.parametrize(
    "content",
    [
        files.gguf(files.facts("qwen2"), files.pair("blk.0.attn_q.weight", (576, 576))),
        files.small_adapter()[:-64],
        b"GGUF",
    ],
)
def test_an_adapter_for_another_base_or_a_damaged_one_is_refused_and_nothing_dies(box: Box, content: bytes) -> None:
    refused = add(box, "wrong", content)
    assert (refused.status, refused.error["param"]) == (400, "content")
    assert box.request("DELETE", "/edge/v1/adapters/wrong").status == 404
    assert complete(box)


def test_a_file_that_was_damaged_on_disk_is_refused_by_the_engine_and_nothing_dies(box: Box) -> None:
    assert add(box, "four", files.small_adapter(seed=5)).status == 200
    path = box.home / "models" / "adapters" / "four.gguf"
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)
    refused = box.request("POST", "/v1/completions", {"model": "default:four", "prompt": PROMPT})
    assert (refused.status, refused.error["code"]) == (500, "model_file")
    assert "has changed since it was added" in refused.error["message"]
    assert complete(box)

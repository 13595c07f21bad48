"""Several writers in one box: loaded when they are asked for, unloaded when nobody does, within the memory budget."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models import catalog, records
from models.store import Store
from tests.box import PATIENCE, Box, UnixConnection, events, link, running
from tests.conftest import EMBEDDER, SMALL_WRITER
from tests.edge_runtime import adapter_files
from tests.models.entries import place

CHAT = "/v1/chat/completions"
SECOND, THIRD, BROKEN = "second", "third", "broken"
_BUDGET = 740 * 10**6  # edged and embedder take 0.22 GB, and each writer 0.2 GB: two have room


@pytest.fixture(scope="module")
def store(shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the small writer is installed under two more names, and once without most of it."""
    root = tmp_path_factory.mktemp("several") / "models"
    shutil.copytree(shared_store.root, root, copy_function=link)
    manifest = records.read(root / "installed" / f"{SMALL_WRITER}.json", records.Manifest)
    assert manifest is not None
    entry = (Path(catalog.__file__).parent / "catalog" / f"{SMALL_WRITER}.toml").read_text("utf-8")
    # Its head says what a model is, and nothing is behind it.
    weights = shared_store.get(SMALL_WRITER).files["weights"].read_bytes()[: 4 * 2**20]
    digest = hashlib.sha256(weights).hexdigest()
    (root / "blobs" / f"sha256-{digest}").write_bytes(weights)
    damaged = msgspec.structs.replace(manifest.files["weights"], sha256=digest, size=len(weights))
    for name, files in ((SECOND, manifest.files), (THIRD, manifest.files), (BROKEN, {"weights": damaged})):
        records.write(root / "installed" / f"{name}.json", msgspec.structs.replace(manifest, name=name, files=files))
        place(root, name, entry.replace(f'name = "{SMALL_WRITER}"', f'name = "{name}"', 1))
    return root


@pytest.fixture(scope="module")
def box(store: Path) -> Iterator[Box]:
    """A box with room for all of them, that unloads after a second."""
    with running(store, "context = 512\nidle_seconds = 1.0\n") as started:
        yield started


@pytest.fixture(scope="module")
def small_box(store: Path) -> Iterator[Box]:
    """A box with room for one beside the configured writer, that unloads nothing for idleness."""
    with running(store, f"context = 512\nidle_seconds = 3600.0\n[memory]\nbudget_bytes = {_BUDGET}\n") as started:
        yield started


def states(box: Box) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in box.get("/edge/v1/models").json["models"]}


def act(box: Box, name: str, verb: str) -> Any:
    reply = box.post(f"/edge/v1/models/{name}/{verb}", {})
    assert reply.status == 200, reply.body
    return reply.json


def loaded(box: Box) -> set[str]:
    return {name for name, model in states(box).items() if model["state"] != "unloaded"}


def engines(box: Box) -> dict[str, int]:
    """Process ids by model."""
    return {child["model"]: child["pid"] for child in box.status()["children"] if child["name"] == "engine"}


def body(model: str, tokens: int = 8) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Tell a long story about a pump."}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "ignore_eos": True}


@contextlib.contextmanager
def streaming(box: Box, model: str, tokens: int = 400) -> Iterator[Iterator[str]]:
    """The text of one long stream, piece by piece; it has begun."""
    chunks = box.stream(CHAT, {**body(model, tokens), "stream": True})
    assert "delta" in next(chunks).data
    yield (
        event.json["choices"][0]["delta"].get("content", "")
        for event in chunks
        if event.data != "[DONE]" and event.json["choices"]
    )


@contextlib.contextmanager
def kept(box: Box, name: str) -> Iterator[None]:
    """A writer that is loaded, and stays although it may have nothing to do."""
    act(box, name, "pin")
    act(box, name, "load")
    try:
        yield
    finally:
        act(box, name, "unpin")


@contextlib.contextmanager
def listening(box: Box, *models: str) -> Iterator[list[tuple[str, str, str]]]:
    """What happens to these models meanwhile, as ``edge events`` would show it: kind, model and reason."""
    heard: list[tuple[str, str, str]] = []
    connection = UnixConnection(box.socket)
    connection.request("GET", "/edge/v1/events")
    reply = connection.getresponse()

    def listen() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for event in events(reply):
                fields = event.json["fields"]
                if event.name.startswith("model.") and fields["model"] in models:
                    heard.append((event.name, fields["model"], fields.get("reason", "")))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        connection.sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        connection.close()


def test_a_writer_that_is_not_loaded_answers_and_leaves_when_it_is_idle(box: Box) -> None:
    assert box.get("/v1/models/second").json["id"] == SECOND
    with listening(box, SECOND) as heard:
        reply = box.post(CHAT, body(SECOND))
        box.wait(lambda: heard[-1:] == [("model.unloaded", SECOND, "idle")])
    assert (reply.status, reply.json["model"]) == (200, SECOND)
    assert reply.json["usage"]["completion_tokens"] == 8
    assert heard == [
        ("model.loading", SECOND, ""),
        ("model.loaded", SECOND, ""),
        ("model.unloaded", SECOND, "idle"),
    ]
    assert set(engines(box)) == {SMALL_WRITER}
    assert states(box)[SECOND]["state"] == "unloaded"
    # It comes back as often as it is asked for.
    again = box.post("/v1/completions", {"model": SECOND, "prompt": "Pumps", "max_tokens": 4})
    assert (again.status, again.json["model"]) == (200, SECOND)


def test_a_writer_that_is_not_loaded_scores(box: Box) -> None:
    reply = box.post("/edge/v1/score", {"model": THIRD, "prompt": "The sky is", "choices": [" blue", " loud"]})
    assert (reply.status, reply.json["model"]) == (200, THIRD)


def test_every_request_that_waits_for_one_load_is_served_by_it(box: Box) -> None:
    box.wait(lambda: loaded(box) == {SMALL_WRITER})
    replies: list[int] = []
    threads = [threading.Thread(target=lambda: replies.append(box.post(CHAT, body(SECOND)).status)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert replies == [200] * 4
    assert box.log.count('"event": "model.loading", "model": "second"') <= 3  # this test's and those before


def test_openai_clients_may_pick_from_every_writer_loaded_or_not(box: Box) -> None:
    names = [card["id"] for card in box.get("/v1/models").json["data"]]
    assert names[0] == SMALL_WRITER
    assert {SECOND, THIRD, EMBEDDER} <= set(names)


def test_an_adapter_whose_base_was_removed_is_listed_as_waiting_for_it(box: Box) -> None:
    manifest = box.home / "models" / "installed" / f"{THIRD}.json"
    body = {"name": "fans", "content": base64.b64encode(adapter_files.small_adapter()).decode(), "base": THIRD}
    assert box.post("/edge/v1/adapters", body).status == 200
    kept = manifest.read_bytes()
    manifest.unlink()
    try:
        (listed,) = box.get("/edge/v1/adapters").json["adapters"]
        refused = box.post("/v1/completions", {"model": f"{THIRD}:fans", "prompt": "x"})
    finally:
        manifest.write_bytes(kept)
    assert (listed["name"], listed["base"], listed["base_installed"]) == ("fans", THIRD, False)
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert "third is no writer that is here" in refused.error["message"]
    (listed,) = box.get("/edge/v1/adapters").json["adapters"]
    assert listed["base_installed"]
    assert box.request("DELETE", "/edge/v1/adapters/fans").status == 200


@pytest.mark.parametrize("name", ["gpt-9", EMBEDDER, "qwen3-4b", "../installed/second", "a\0b"])
def test_a_model_that_is_no_writer_of_this_box_is_refused_by_its_name(box: Box, name: str) -> None:
    reply = box.post(CHAT, body(name))
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert SECOND in reply.error["message"]


def test_a_pinned_writer_stays_until_it_is_unpinned(box: Box) -> None:
    assert act(box, THIRD, "pin")["state"] in ("unloaded", "ready", "starting")
    assert act(box, THIRD, "load")["state"] == "ready"
    refused = box.post(f"/edge/v1/models/{THIRD}/unload", {})
    assert (refused.status, "edge model unpin third" in refused.error["message"]) == (409, True)
    # Another one comes and goes, and it is still there.
    act(box, SECOND, "load")
    box.wait(lambda: loaded(box) == {SMALL_WRITER, THIRD})
    assert states(box)[THIRD]["pinned"]
    act(box, THIRD, "unpin")
    box.wait(lambda: loaded(box) == {SMALL_WRITER})


@pytest.mark.parametrize("verb", ["unload", "unpin"])
def test_the_configured_writer_is_always_there(box: Box, verb: str) -> None:
    refused = box.post(f"/edge/v1/models/{SMALL_WRITER}/{verb}", {})
    assert (refused.status, refused.error["code"]) == (409, "refused")


@pytest.mark.parametrize("verb", ["load", "unload", "pin", "unpin"])
def test_an_unknown_model_is_neither_loaded_nor_pinned(box: Box, verb: str) -> None:
    assert box.post(f"/edge/v1/models/gpt-9/{verb}", {}).status == 404


def test_a_writer_that_cannot_be_loaded_is_given_up_with_the_reason(box: Box) -> None:
    with listening(box, BROKEN) as heard:
        refused = box.post(CHAT, body(BROKEN))
        assert (refused.status, refused.error["code"]) == (503, "engine_unavailable")
        assert "is damaged or of an unknown kind" in refused.error["message"]
        box.wait(lambda: len(heard) == 2)
    assert heard == [("model.loading", BROKEN, ""), ("model.unloaded", BROKEN, "failed")]
    assert states(box)[BROKEN]["state"] == "unloaded"
    assert box.chat().status == 200


def test_the_death_of_one_engine_is_nothing_to_the_streams_of_the_other(box: Box) -> None:
    with kept(box, SECOND):
        with streaming(box, SMALL_WRITER, 100) as text, streaming(box, SECOND, 100) as other:
            os.kill(engines(box)[SECOND], signal.SIGKILL)
            assert "".join(text)
            assert "".join(other)  # it goes on where it was, in a new process
        children = {child["model"]: child["restarts"] for child in box.status()["children"]}
    assert children[SMALL_WRITER] == 0
    assert children[SECOND] == 1


def test_the_engine_of_another_writer_is_sealed_as_the_first_is(box: Box) -> None:
    with kept(box, SECOND):
        attempts = box.post("/edge/v1/probe").json["attempts"]
    first, second = (
        [(attempt["route"], attempt["refused"]) for attempt in attempts if attempt["process"] == process]
        for process in ("engine", "engine of second")
    )
    assert second == first
    assert all(refused for _, refused in second)


def test_an_idle_writer_leaves_for_one_that_needs_its_memory(small_box: Box) -> None:
    assert small_box.post(CHAT, body(SECOND)).status == 200
    before = engines(small_box)[SECOND]
    with listening(small_box, SECOND, THIRD) as heard:
        assert small_box.post(CHAT, body(THIRD)).json["model"] == THIRD
    assert heard == [
        ("model.unloaded", SECOND, "memory"),
        ("model.loading", THIRD, ""),
        ("model.loaded", THIRD, ""),
    ]
    assert loaded(small_box) == {SMALL_WRITER, THIRD}
    assert not Path(f"/proc/{before}").exists()
    assert small_box.status()["memory_bytes"] <= _BUDGET


def test_an_active_writer_never_leaves_and_the_newcomer_is_told_when_to_come_back(small_box: Box) -> None:
    with streaming(small_box, SECOND, 300) as text:
        refused = small_box.post(CHAT, body(THIRD))
        assert (refused.status, refused.error["code"]) == (429, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert "while second is in use" in refused.error["message"]
        unload = small_box.post(f"/edge/v1/models/{SECOND}/unload", {})
        assert (unload.status, unload.error["code"]) == (409, "refused")
        assert not states(small_box)[THIRD]["fits"]
        assert states(small_box)[SECOND]["active"] == 1
        assert "".join(text)
    small_box.wait(lambda: states(small_box)[SECOND]["active"] == 0)
    assert states(small_box)[THIRD]["fits"]
    assert small_box.post(CHAT, body(THIRD)).status == 200


def test_a_client_that_hangs_up_while_its_writer_loads_leaves_it_idle(small_box: Box) -> None:
    act(small_box, THIRD, "load")
    with listening(small_box, SECOND, THIRD) as heard:
        connection = UnixConnection(small_box.socket)
        connection.request("POST", CHAT, json.dumps(body(SECOND, 300)))
        small_box.wait(lambda: ("model.loading", SECOND, "") in heard)
        connection.close()
        small_box.wait(lambda: ("model.loaded", SECOND, "") in heard and not states(small_box)[SECOND]["active"])
    assert small_box.post(CHAT, body(THIRD)).status == 200


def test_what_is_pinned_leaves_no_room_and_waiting_for_it_would_be_in_vain(small_box: Box) -> None:
    act(small_box, SECOND, "load")
    act(small_box, SECOND, "pin")
    refused = small_box.post(CHAT, body(THIRD))
    act(small_box, SECOND, "unpin")
    assert (refused.status, refused.error["code"]) == (409, "refused")
    assert f"beside what stays ({SMALL_WRITER}, {SECOND})" in refused.error["message"]


def edge(box: Box, *arguments: str) -> subprocess.CompletedProcess[str]:
    world = {**os.environ, "EDGE_HOME": str(box.home)}
    command = [sys.executable, "-P", "-m", "edge_runtime.cli", "model", *arguments]
    return subprocess.run(command, env=world, capture_output=True, text=True, timeout=PATIENCE)


def test_the_owner_loads_lists_and_unloads_at_the_shell(small_box: Box) -> None:
    done = edge(small_box, "load", SECOND)
    assert (done.returncode, done.stderr.startswith("second: loaded; ")) == (0, True)
    listed = edge(small_box, "list", "--installed")
    assert [line.split()[-1] for line in listed.stdout.splitlines() if line.startswith("second")] == ["loaded"]
    assert edge(small_box, "unload", SECOND).returncode == 0
    assert loaded(small_box) == {SMALL_WRITER}
    assert edge(small_box, "unload", SMALL_WRITER).returncode == 4
    default = edge(small_box, "load", "default")
    assert (default.returncode, default.stderr.startswith(f"{SMALL_WRITER}: loaded, pinned; ")) == (0, True)
    assert edge(small_box, "unload", "default").returncode == 4


def test_a_stop_ends_the_engine_of_every_writer(store: Path) -> None:
    with running(store, 'context = 512\npinned = ["second"]\n') as box:
        box.wait(lambda: states(box)[SECOND]["state"] == "ready")
        act(box, THIRD, "load")
        everyone = engines(box)
        assert set(everyone) == {SMALL_WRITER, SECOND, THIRD}
        assert box.stop() == 0
        assert not [pid for pid in everyone.values() if Path(f"/proc/{pid}").exists()]

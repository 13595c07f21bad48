"""``kill -9`` in the middle of adding many documents: nothing that was committed is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.knowledge.filters import Scope
from edge_runtime.knowledge.index import Index
from models.store import Store
from tests.box import PATIENCE, Box, running

COUNT = 120  # many more than are on their way at once: those are stored together
KILLS = 3


@pytest.fixture
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "manuals"
    made.mkdir()
    for number in range(COUNT):
        parts = [f"## Part {part}\n\nPump {number} has {part * number} bolts of size {part}." for part in range(6)]
        (made / f"p{number:02}.md").write_text(f"# Pump {number}\n\n" + "\n\n".join(parts) + "\n", "utf-8")
    return made


def adding(box: Box, folder: Path) -> subprocess.Popen[str]:
    world = {**os.environ, "EDGE_HOME": str(box.home)}
    command = [sys.executable, "-m", "edge_runtime.cli", "add", str(folder)]
    return subprocess.Popen(command, env=world, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, told = process.communicate(timeout=PATIENCE * 3)
    assert process.returncode == 0, told
    return told


def documents(box: Box) -> list[dict[str, object]]:
    found: list[dict[str, object]] = box.get("/edge/v1/documents").json["documents"]
    return found


def content(home: Path) -> tuple[dict[str, list[tuple[str, int, int]]], np.ndarray, set[tuple[str, int]]]:
    """Passages by document, vectors in the order of their texts, and how often each term occurs."""
    path = home / "index.db"
    with sqlite3.connect(path) as plain:
        (held,) = plain.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()
    plain.close()
    embedder, _, width = held.rpartition("/")
    index = Index.open(path, embedder=embedder, width=int(width))
    try:
        scope = index.scope("default", None)
        assert isinstance(scope, Scope)
        near = index.nearest(scope, np.eye(1, int(width), dtype=np.float32)[0], 4000)
        rows = index.chunks(sorted(near))
        passages: dict[str, list[tuple[str, int, int]]] = {}
        for row in rows:
            passages.setdefault(row.document, []).append((row.text, row.start, row.tokens))
        ordered = sorted(rows, key=lambda row: (row.document, row.start))
        known = {document.name: index.known("default", document.name) for document in index.documents()}
        vectors = [
            one.rows[0]
            for name in sorted(known)
            for _, one in sorted(known[name].chunks.items(), key=lambda item: item[0])
        ]
        terms = {(stem, index.rarity([stem])[1].get(stem, 0)) for row in ordered for stem in index.stems(row.text)}
    finally:
        index.close()
    return {name: sorted(found) for name, found in passages.items()}, np.vstack(vectors), terms


def compare(home: Path, fresh: Path) -> None:
    ours, theirs = content(home), content(fresh)
    assert ours[0] == theirs[0]
    assert ours[2] == theirs[2]
    # The int8 model's vectors depend a little on what else is in a batch.
    assert (ours[1] * theirs[1]).sum(axis=1).min() > 0.97


@pytest.mark.parametrize("victim", ["daemon", "command"])
def test_whoever_is_killed_adding_again_ends_as_if_nobody_was(
    victim: str, box: Box, folder: Path, shared_store: Store
) -> None:
    chance = random.Random(victim)
    committed: set[str] = set()
    for number in range(KILLS):
        process = adding(box, folder)
        target = (number + 1) * COUNT // (KILLS + 2)
        box.wait(lambda target=target: len(documents(box)) >= target)
        time.sleep(chance.random() * 0.3)
        if victim == "daemon":
            committed = {str(one["id"]) for one in documents(box)}
            box.stop(signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
            assert process.returncode in {1, 3}
            box.start()
        else:
            process.kill()
            process.communicate(timeout=PATIENCE)
            box.wait(lambda: box.status()["requests_running"] == 0)
            committed = {str(one["id"]) for one in documents(box)}
        found = documents(box)
        assert committed <= {str(one["id"]) for one in found}
        assert len({one["name"] for one in found}) == len(found)
    finish(adding(box, folder))
    assert committed <= {str(one["id"]) for one in documents(box)}
    assert len(documents(box)) == COUNT
    assert f"{COUNT} unchanged" in finish(adding(box, folder))
    box.stop()
    with running(shared_store.root) as fresh:
        finish(adding(fresh, folder))
        fresh.stop()
        compare(box.home, fresh.home)


def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(box: Box, folder: Path) -> None:
    world = {**os.environ, "EDGE_HOME": str(box.home)}
    command = ["env", "--default-signal=INT", sys.executable, "-m", "edge_runtime.cli", "add", str(folder)]
    with subprocess.Popen(command, env=world, stderr=subprocess.PIPE, text=True) as process:
        box.wait(lambda: len(documents(box)) >= 5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "the same command goes on from there" in told
    there = len(documents(box))
    assert 5 <= there < COUNT
    assert f"{there} unchanged" in finish(adding(box, folder))


def test_whoever_searches_while_documents_are_added_sees_no_error(box: Box, folder: Path) -> None:
    box.add("first.md", b"# First\n\nThe first pump is green.\n")
    failed: list[object] = []
    ended = threading.Event()

    def search() -> None:
        while not ended.is_set():
            reply = box.post("/edge/v1/search", {"query": "green first pump"})
            if reply.status != 200 or not reply.json["hits"]:
                failed.append(reply)

    searcher = threading.Thread(target=search)
    searcher.start()
    try:
        finish(adding(box, folder))
        for path in folder.iterdir():
            path.write_text(path.read_text("utf-8").replace("bolts", "nuts"), "utf-8")
        assert f"added {COUNT} documents" in finish(adding(box, folder))
    finally:
        ended.set()
        searcher.join()
    assert not failed

"""Adding documents to a real daemon: at its start, and when whoever asked for it leaves."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.store import Store
from tests.box import Box, dial, prepared, running

NOTE = b"# Pump P9\n\nPump P9 turns at 1450 rpm.\n"


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        yield started


def test_a_document_that_comes_before_the_index_is_open_waits_for_it(shared_store: Store) -> None:
    with prepared(shared_store.root) as early:
        early.start(ready=False)
        assert early.add("pump.md", NOTE).status == 200
        assert [one["name"] for one in early.get("/edge/v1/documents").json["documents"]] == ["pump.md"]


def test_whoever_leaves_while_a_document_is_added_stops_the_work(box: Box) -> None:
    text = "\n\n".join(
        f"Paragraph {number} says that valve V{number} opens at {number} bar." for number in range(30_000)
    )
    body = json.dumps({"name": "long.txt", "content": base64.b64encode(text.encode()).decode()}).encode()
    with dial(box.socket) as line:
        head = f"POST /edge/v1/documents HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        busy = _cpu(box)
        box.wait(lambda: _cpu(box) > busy + 20)  # the embedder has begun
    box.wait(lambda: box.status()["requests_running"] == 0)
    box.wait(lambda: _idle(box))
    assert box.get("/edge/v1/documents").json["documents"] == []
    assert box.add("pump.md", NOTE).status == 200


def _cpu(box: Box) -> int:
    """Ticks of CPU time that the embedder has used (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{box.child('embedder')['pid']}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _idle(box: Box) -> bool:
    before = _cpu(box)
    time.sleep(0.5)
    return _cpu(box) - before <= 2

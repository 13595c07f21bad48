"""A real box and its memory budget: what it says of itself, and what it does when the budget is used up."""

from __future__ import annotations

from models.store import Store
from tests.box import running

ASK = {"model": "default", "prompt": "The pump", "max_tokens": 4}
MIB = 2**20


def settings(mib: int) -> str:
    return f"[memory]\nbudget_bytes = {mib * MIB}\n"


def test_a_budget_that_is_used_up_refuses_new_work_with_the_reason_and_a_time(shared_store: Store) -> None:
    with running(shared_store.root, settings(64)) as box:
        box.wait(lambda: box.post("/v1/completions", ASK).status == 429)
        reply = box.post("/v1/completions", ASK)
        assert reply.error["code"] == "busy"
        assert "64.0 MiB" in reply.error["message"]
        assert "memory.budget_bytes" in reply.error["message"]
        assert int(reply.headers["Retry-After"]) >= 1
        assert "memory.refusing" in box.log
        status = box.get("/edge/v1/status").json
        assert status["memory_bytes"] > status["memory_budget_bytes"] == 64 * MIB


def test_every_process_says_its_size_and_a_budget_with_room_refuses_nobody(shared_store: Store) -> None:
    with running(shared_store.root, settings(4096)) as box:
        box.wait(lambda: box.get("/metrics").body.count(b'edge_memory_bytes{process="') == 3)
        box.wait(lambda: box.get("/edge/v1/status").json["memory_bytes"] > 150 * MIB)
        assert box.post("/v1/completions", ASK).status == 200
        assert b"edge_memory_budget_bytes 4294967296" in box.get("/metrics").body
        assert box.get("/edge/v1/status").json["threads"] >= 1

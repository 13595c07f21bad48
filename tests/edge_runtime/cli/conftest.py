"""``edge`` as a process of its own, on a home of its own, before a scripted daemon or none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_runtime import adapter_protocol, knowledge_protocol, model_protocol, protocol
from tests.edge_runtime import samples
from tests.edge_runtime.scripted import Asked, Script, ScriptedDaemon, json_reply, stream_reply

PATIENCE = 60.0  # seconds
PURGED = knowledge_protocol.Removed(removed=["d1"], purged={"chunks": 7, "vectors": 9, "answers": 1})


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@dataclass
class Shell:
    """``EDGE_HOME`` and verbs; a scripted daemon may listen on ``socket``."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.home / "run" / "edged.sock"

    @property
    def world(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_", "NO_COLOR"))}
        return {**kept, "EDGE_HOME": str(self.home), **self.environment}

    def edge(self, *arguments: str | Path, given: str = "", cwd: Path | None = None) -> Done:
        """Run ``edge`` to its end; ``given`` is its stdin."""
        command = [sys.executable, "-m", "edge_runtime.cli", *map(str, arguments)]
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, env=self.world, cwd=cwd, timeout=PATIENCE
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def daemon(self, changes: Mapping[str, Any] | None = None) -> ScriptedDaemon:
        return ScriptedDaemon(self.socket, {**usual_replies(), **(changes or {})})


def usual_replies() -> dict[str, Any]:
    def add(asked: Asked) -> Script:
        name = asked.json["name"]
        document = msgspec.structs.replace(samples.DOCUMENT, name=name, id=f"id-{name}")
        return json_reply(knowledge_protocol.DocumentAdded(document=document))

    def ask(asked: Asked) -> Script:
        if not asked.json["stream"]:
            return json_reply(samples.ANSWER)
        sentences = [("sentence", sentence) for sentence in samples.SENTENCES]
        return stream_reply([("sources", samples.SOURCES), *sentences, ("done", samples.ANSWER)])

    hit = knowledge_protocol.Hit(
        document="pump.md", document_id="d1", locator=samples.CITATION.locator, score=0.73125, text="E17: low pressure."
    )
    request = protocol.RunningRequest(
        id="req-1", kind="ask", peer="uid 1000", priority="interactive", state="running", age_s=1.5, tokens=12
    )
    return {
        "GET /edge/v1/status": json_reply(samples.STATUS),
        "GET /edge/v1/documents": json_reply(knowledge_protocol.DocumentList(documents=[samples.DOCUMENT])),
        "POST /edge/v1/documents/check": json_reply(knowledge_protocol.DocumentList(documents=[])),
        "POST /edge/v1/documents": add,
        "DELETE /edge/v1/documents/d1": json_reply(PURGED),
        "POST /edge/v1/ask": ask,
        "POST /edge/v1/search": json_reply(knowledge_protocol.SearchReply(hits=[hit])),
        "GET /edge/v1/engine": json_reply(samples.ENGINE),
        "POST /edge/v1/score": json_reply(samples.SCORES),
        "GET /edge/v1/requests": json_reply(protocol.RequestList(requests=[request])),
        "DELETE /edge/v1/requests/req-1": json_reply(protocol.Acknowledged()),
        "GET /edge/v1/models": json_reply(model_protocol.ModelStates(models=[samples.MODEL], budget=2**31)),
        **{
            f"POST /edge/v1/models/{samples.MODEL.name}/{verb}": json_reply(samples.MODEL)
            for verb in ("load", "unload", "pin", "unpin")
        },
        "GET /edge/v1/adapters": json_reply(adapter_protocol.AdapterList(adapters=[samples.LISTED_ADAPTER])),
        "POST /edge/v1/adapters": json_reply(adapter_protocol.AdapterAdded(adapter=samples.ADAPTER)),
        "DELETE /edge/v1/adapters/pumps": json_reply(
            adapter_protocol.AdapterRemoved(removed="pumps", freed=samples.ADAPTER.size)
        ),
        "POST /edge/v1/probe": json_reply(samples.PROOF),
        "GET /edge/v1/index": json_reply(samples.INDEX),
        "POST /edge/v1/index/compact": json_reply(
            knowledge_protocol.Compacted(before_bytes=5 * 2**20, after_bytes=2 * 2**20)
        ),
        "POST /edge/v1/index/export": stream_reply([("done", samples.EXPORTED)]),
        "GET /edge/v1/index/mounts": json_reply(
            knowledge_protocol.MountList(mounts=[samples.BROKEN_MOUNT, samples.MOUNT])
        ),
        "POST /edge/v1/index/mounts": json_reply(samples.MOUNT),
        "DELETE /edge/v1/index/mounts/vendor": json_reply(samples.MOUNT),
        "POST /edge/v1/index/reembed": json_reply(
            knowledge_protocol.ReembedStarted(documents=7, embedder=samples.INDEX.embedder_now)
        ),
        "POST /edge/v1/backup": json_reply(
            protocol.BackupReply(path="/var/lib/edge/backups/x", size=2048, files=["index.db"])
        ),
    }


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    return Shell(home)

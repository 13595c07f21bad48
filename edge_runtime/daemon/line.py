"""The one log line of a request, with what the metrics count and the events tell; never its text."""

from __future__ import annotations

import time
import uuid

from edge_runtime.daemon import logs
from edge_runtime.daemon.call import Call
from edge_runtime.daemon.state import Daemon
from edge_runtime.errors import EdgeError

GONE = 499  # what nginx logs for a client that left; nobody receives it


class Line:
    """The log line and the counts of one request."""

    def __init__(self, kind: str, daemon: Daemon) -> None:
        self.kind = kind
        self.key = f"req-{uuid.uuid4().hex[:20]}"
        self.peer = ""
        self.status = GONE
        self.code: str | None = None
        self.reason = ""
        self.call: Call | None = None
        self._daemon = daemon
        self._began = time.perf_counter()

    def fail(self, error: EdgeError) -> None:
        self.status = error.status
        self.code = error.code
        self.reason = error.reason

    def write(self) -> None:
        seconds = time.perf_counter() - self._began
        read, written = (self.call.prompt_tokens, self.call.completion_tokens) if self.call else (0, 0)
        metrics = self._daemon.metrics
        metrics.requests.add(route=self.kind, status=str(self.status))
        metrics.seconds.observe(seconds, route=self.kind)
        if read or written:
            metrics.tokens.add(read, direction="read")
            metrics.tokens.add(written, direction="written")
        fields: dict[str, str | int | float] = {
            "id": self.key,
            "peer": self.peer,
            "route": self.kind,
            "status": self.status,
            "ms": round(seconds * 1000, 1),
            "tokens_in": read,
            "tokens_out": written,
        }
        if self.code is not None:
            metrics.refusals.add(code=self.code)
            fields["code"] = self.code
        if self.reason:
            asked = self.call.running.priority if self.call is not None else ""
            metrics.refused.add(**{"class": asked, "reason": self.reason})
            fields["reason"] = self.reason
        logs.info("request", **fields)
        if self.kind not in ("health", "ready", "metrics", "status", "requests", "engine"):
            self._daemon.events.publish("request.finished", **fields)

"""Every request and reply on the socket, as plain data: the wire format is what these types say.

Our own bodies under ``/edge/v1`` refuse fields that they do not know; OpenAI's, under ``/v1``, are in
:mod:`edge_runtime.openai_protocol`. Field names are the wire names. Sizes are in bytes, times in milliseconds unless
named.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

VERSION = "1"

Sensitivity = Literal["public", "internal", "confidential", "secret"]
Priority = Literal["realtime", "interactive", "batch"]

Text = Annotated[str, Meta(min_length=1, max_length=100_000)]
Base64 = Annotated[bytes, Meta(description="The file's bytes in base64 (RFC 4648, section 4), padded, on one line.")]
# What a name may hold: for programs, and in words for people.
COLLECTION = Meta(
    pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
    description="1 to 64 of a-z, 0-9, dash and underscore, beginning with a letter or a digit.",
)
ADAPTER = Meta(
    pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
    description="1 to 64 of a-z, 0-9, dot, dash and underscore, beginning with a letter or a digit.",
)
BACKUP = Meta(
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
    description="1 to 100 of A-Z, a-z, 0-9, dot, dash and underscore, beginning with a letter or a digit.",
)
CollectionName = Annotated[str, COLLECTION]
AdapterName = Annotated[str, ADAPTER]
DEFAULT_COLLECTION = "default"


class Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A body that OpenAI's clients send or read."""


class Own(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body of our own."""


# ---- our extensions inside OpenAI's bodies -------------------------------------------------------------------------


class Urgency(Own, frozen=True, kw_only=True):
    """The ``edge`` object of a question."""

    priority: Annotated[
        Priority, Meta(description="Who goes first, and whom a full queue still takes: batch is parked for the others.")
    ] = "interactive"
    deadline_ms: Annotated[
        Annotated[int, Meta(gt=0, le=2**31 - 1)] | None,
        Meta(
            description="Milliseconds from the request's arrival; then 504 deadline_exceeded. Refused at once where it "
            "cannot be met."
        ),
    ] = None


class EdgeRequest(Urgency, frozen=True, kw_only=True):
    """The ``edge`` object in OpenAI's bodies."""

    collection: Annotated[
        CollectionName | None, Meta(description="Refused in this version: ask with /edge/v1/ask.")
    ] = None
    deterministic: Annotated[
        bool, Meta(description="Greedy, and the same text whatever else the box is doing; slower.")
    ] = False
    adapter: Annotated[
        AdapterName | None, Meta(description="An adapter of the model; `model` may also be MODEL:ADAPTER.")
    ] = None


class CacheReport(Wire, frozen=True, kw_only=True):
    """How much of the prompt had been read before."""

    hit_tokens: int
    tier: Literal["none", "live", "memory", "disk"]
    diverged: str | UnsetType = UNSET  # on a miss: the first text that differed from the nearest prompt kept


class SpeculationReport(Wire, frozen=True, kw_only=True):
    drafted: int  # tokens that were guessed
    accepted: int  # those of them that were right


class EdgeReport(Wire, frozen=True, kw_only=True):
    cache: CacheReport
    speculation: SpeculationReport | UnsetType = UNSET
    parked: int | UnsetType = UNSET  # times that the request made room for others


# ---- /edge/v1/status, /events, /requests, /models ------------------------------------------------------------------


class ChildStatus(Wire, frozen=True, kw_only=True):
    name: Literal["engine", "embedder", "reranker"]
    state: Literal["starting", "ready", "failed", "stopped"]
    pid: int | None
    restarts: int
    model: str | None
    detail: str = ""


class SealStatus(Wire, frozen=True, kw_only=True):
    sealed: bool
    seccomp: bool
    landlock_abi: int  # 0: none
    missing: list[str]  # each a sentence: the guarantee that is not there


class Status(Wire, frozen=True, kw_only=True):
    ready: bool
    version: str
    protocol: str
    uptime_s: float
    home: str
    socket: str
    listen: str | None
    writer: str | None
    embedder: str | None
    context: int
    seal: SealStatus
    children: list[ChildStatus]
    documents: int
    chunks: int
    requests_running: int
    requests_waiting: int
    detail: str = ""  # when not ready: why
    memory_bytes: int = 0  # of all processes, as they said last
    memory_budget_bytes: int = 0
    threads: int = 0  # that the writer computes with now
    note: str = ""  # what the owner should know of a box that is ready, with what to do about it


class RunningRequest(Wire, frozen=True, kw_only=True):
    id: str
    kind: str  # the route: chat, completion, ask, ...
    peer: str  # "uid 1000" or "token"
    priority: Priority
    state: Literal["waiting", "running"]  # running from the first token on
    age_s: float
    tokens: int


class RequestList(Wire, frozen=True, kw_only=True):
    requests: list[RunningRequest]


class Event(Wire, frozen=True, kw_only=True):
    """One line of ``/edge/v1/events``: the SSE event name is ``kind``."""

    kind: str  # request.started, request.finished, document.added, document.removed, child.started, child.died, ...
    at: float  # Unix seconds
    fields: dict[str, str | int | float | bool | None] = {}


class Health(Wire, frozen=True, kw_only=True):
    """``/healthz`` and ``/readyz``."""

    status: Literal["ok", "not ready"]
    detail: str = ""


class Acknowledged(Wire, frozen=True, kw_only=True):
    """What was asked has been done, and there is nothing to tell about it."""

    ok: bool = True


class BackupRequest(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/backup``: the file is written to ``EDGE_HOME/backups``, the one place the sealed daemon may."""

    name: Annotated[str, BACKUP] | None = None


class BackupReply(Wire, frozen=True, kw_only=True):
    path: str
    size: int  # bytes
    files: list[str]


class SealAttempt(Wire, frozen=True, kw_only=True):
    """One way out that a sealed process tried on itself (``edge doctor``)."""

    process: str
    route: str
    refused: bool
    detail: str


class SealProof(Wire, frozen=True, kw_only=True):
    attempts: list[SealAttempt]


# ---- errors --------------------------------------------------------------------------------------------------------


class ErrorBody(Wire, frozen=True, kw_only=True):
    message: str
    type: str
    code: str | None = None
    param: str | None = None


class ErrorReply(Wire, frozen=True, kw_only=True):
    """OpenAI's error shape; also the last event of a stream that fails."""

    error: ErrorBody

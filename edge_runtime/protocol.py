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
SearchMode = Literal["hybrid", "lexical", "dense"]
AskMode = Literal["auto", "extract"]
Verdict = Literal["good", "bad"]
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


# ---- /edge/v1/ask, /search, /documents -----------------------------------------------------------------------------


class Locator(Wire, frozen=True, kw_only=True):
    """Where in a document's text: characters ``start`` to ``end``, and how a person would find it."""

    start: int
    end: int
    page: int | None = None
    heading: str | None = None


class Citation(Wire, frozen=True, kw_only=True):
    document: str  # the document's name, as it was added
    document_id: str
    locator: Locator
    quote: str  # verbatim: text[start:end] of the document


class AskRequest(Own, frozen=True, kw_only=True):
    question: Annotated[str, Meta(min_length=1, max_length=8000)]
    collection: CollectionName | None = DEFAULT_COLLECTION  # null is the default one too
    mode: AskMode = "auto"
    stream: bool = False
    edge: Urgency | None = None


class Answer(Wire, frozen=True, kw_only=True):
    id: str
    status: Literal["done", "running", "cancelled", "failed"]
    answer: str
    citations: list[Citation]
    grounded: bool  # false: the documents do not say
    route: str  # begins with cache, knowledge, model, agent or uplink
    sensitivity: Sensitivity
    model: str | None  # the writer that phrased the answer; null: quotes alone
    cached_age_s: float | None
    timings_ms: dict[str, float]
    confidence: float  # calibrated probability that the first quote answers the question


class Sources(Wire, frozen=True, kw_only=True):
    """First event of a streamed answer: event ``sources``."""

    id: str
    citations: list[Citation]


class Sentence(Wire, frozen=True, kw_only=True):
    """One verified sentence of a streamed answer: event ``sentence``. ``citations`` are indices into ``sources``."""

    text: str
    citations: list[int]


class SearchRequest(Own, frozen=True, kw_only=True):
    query: Annotated[str, Meta(min_length=1, max_length=8000)]
    collection: CollectionName | None = DEFAULT_COLLECTION  # null is the default one too
    mode: SearchMode = "hybrid"
    k: Annotated[int, Meta(ge=1, le=100)] = 5


class Hit(Wire, frozen=True, kw_only=True):
    document: str
    document_id: str
    locator: Locator
    score: float
    text: str


class SearchReply(Wire, frozen=True, kw_only=True):
    hits: list[Hit]


class DocumentAdd(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/documents``: the file's bytes in base64 (the CLI reads, the daemon parses in a limited child)."""

    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    content: Base64
    collection: CollectionName = DEFAULT_COLLECTION


class Document(Wire, frozen=True, kw_only=True):
    id: str
    name: str
    collection: str
    format: str  # markdown, text, html or pdf
    sha256: str
    characters: int
    chunks: int
    pages: int | None
    added: float  # Unix seconds


class DocumentAdded(Wire, frozen=True, kw_only=True):
    document: Document
    unchanged: bool = False  # the same bytes were already there under this name
    warnings: list[str] = []


class DocumentList(Wire, frozen=True, kw_only=True):
    documents: list[Document]


class Passage(Wire, frozen=True, kw_only=True):
    """``GET /edge/v1/documents/{id}/text?start&end``."""

    document: str
    document_id: str
    start: int
    end: int
    text: str


class Removed(Wire, frozen=True, kw_only=True):
    removed: list[str]  # document ids
    purged: dict[str, int]  # what was derived from them: chunks, vectors, answers, snapshots


class CollectionChange(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/collections``: what is left out stays; no readers at all means everyone who may ask."""

    name: CollectionName
    sensitivity: Sensitivity | None = None
    uids: list[Annotated[int, Meta(ge=0)]] | None = None
    gids: list[Annotated[int, Meta(ge=0)]] | None = None


class Collection(Wire, frozen=True, kw_only=True):
    name: str
    sensitivity: Sensitivity
    uids: list[int]
    gids: list[int]


class CollectionList(Wire, frozen=True, kw_only=True):
    collections: list[Collection]


class FeedbackRequest(Own, frozen=True, kw_only=True):
    answer_id: Annotated[str, Meta(min_length=1, max_length=64)]
    verdict: Verdict
    hit: int | None = None


# ---- /edge/v1/status, /events, /requests, /models ------------------------------------------------------------------


class ChildStatus(Wire, frozen=True, kw_only=True):
    name: Literal["engine", "embedder"]
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

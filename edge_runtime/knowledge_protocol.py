"""The bodies of the knowledge routes: questions, search, documents, collections and the index itself.

Data alone, as :mod:`edge_runtime.protocol`, whose conventions hold here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edge_runtime.protocol import (
    DEFAULT_COLLECTION,
    Base64,
    CollectionName,
    Own,
    Sensitivity,
    Urgency,
    Wire,
)

SearchMode = Literal["hybrid", "lexical", "dense"]
Fusion = Literal["convex", "rrf"]
Scan = Literal["coarse", "exact", "none"]
AskMode = Literal["auto", "extract"]
Assembly = Literal["auto", "stuff", "map-reduce", "refine"]
Verdict = Literal["good", "bad"]

TAG = Meta(
    pattern=r"^[\w][\w.:/-]{0,63}$",
    description="1 to 64 letters, digits, dots, colons, slashes, dashes and underscores.",
)
DATE = Meta(
    pattern=r"^\d{4}-\d{2}-\d{2}$",
    description="A day as YYYY-MM-DD.",
)
Tag = Annotated[str, TAG]
Date = Annotated[str, DATE]


class Filter(Own, frozen=True, kw_only=True):
    """Which documents of a collection take part at all; applied before the best are chosen, never after."""

    documents: Annotated[list[str], Meta(max_length=1000, description="Names or ids, any of them; empty: all.")] = []
    tags: Annotated[list[Tag], Meta(max_length=16, description="All of them.")] = []
    since: Annotated[Date | None, Meta(description="Documents dated on this day or later.")] = None
    until: Annotated[Date | None, Meta(description="Documents dated on this day or earlier.")] = None


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


# ---- /edge/v1/ask --------------------------------------------------------------------------------------------------


class AskRequest(Own, frozen=True, kw_only=True):
    question: Annotated[str, Meta(min_length=1, max_length=8000)]
    collection: CollectionName | None = DEFAULT_COLLECTION  # null is the default one too
    mode: AskMode = "auto"
    assembly: Annotated[
        Assembly,
        Meta(description="How what must be read is put before the writer; auto chooses by how much that is."),
    ] = "auto"
    filter: Filter | None = None
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
    assembly: Assembly | None = None  # how the writer read; null: it read nothing
    calls: int = 0  # of the writer


class Sources(Wire, frozen=True, kw_only=True):
    """First event of a streamed answer: event ``sources``."""

    id: str
    citations: list[Citation]


class Sentence(Wire, frozen=True, kw_only=True):
    """One verified sentence of a streamed answer: event ``sentence``. ``citations`` are indices into ``sources``."""

    text: str
    citations: list[int]


class FeedbackRequest(Own, frozen=True, kw_only=True):
    answer_id: Annotated[str, Meta(min_length=1, max_length=64)]
    verdict: Verdict
    hit: int | None = None


# ---- /edge/v1/search -----------------------------------------------------------------------------------------------


class SearchRequest(Own, frozen=True, kw_only=True):
    query: Annotated[str, Meta(min_length=1, max_length=100_000)]
    collection: CollectionName | None = DEFAULT_COLLECTION  # null is the default one too
    mode: SearchMode = "hybrid"
    k: Annotated[int, Meta(ge=1, le=100)] = 5
    filter: Filter | None = None
    fusion: Annotated[Fusion, Meta(description="How the two rankings of hybrid are joined.")] = "convex"
    weight: Annotated[
        Annotated[float, Meta(ge=0.0, le=1.0)] | None,
        Meta(description="Share of the dense score in convex fusion; null: it follows the query."),
    ] = None
    rerank_ms: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Time for the cross-encoder, if the box has one; 0: none."),
    ] = 0
    explain: bool = False


class HitParts(Wire, frozen=True, kw_only=True):
    """What a hit's score was made of; a rank counts from 1, null: that side did not return it."""

    cosine: float | None
    bm25: float | None
    lexical: float  # BM25 as a share of the best possible, 0 to 1
    dense_rank: int | None
    lexical_rank: int | None
    sentence: float | None = None  # cosine of its best sentence, where that was looked at
    rerank: float | None = None  # the cross-encoder's probability


class Hit(Wire, frozen=True, kw_only=True):
    document: str
    document_id: str
    locator: Locator
    score: float
    text: str
    parts: HitParts | UnsetType = UNSET


class SearchReport(Wire, frozen=True, kw_only=True):
    """How a search went, where ``explain`` was set."""

    expression: str  # given to FTS5
    weight: float  # of the dense score
    reason: str  # why that weight
    dropped: list[str]  # words that were not searched for
    scan: Scan
    timings_ms: dict[str, float]
    reranked: int = 0  # hits that the cross-encoder read


class SearchReply(Wire, frozen=True, kw_only=True):
    hits: list[Hit]
    report: SearchReport | UnsetType = UNSET


class LabelledQuery(Own, frozen=True, kw_only=True):
    """A query and what should be found: documents (names or ids), or passages that hold one of the texts."""

    query: Annotated[str, Meta(min_length=1, max_length=8000)]
    documents: list[str] = []
    texts: list[str] = []


class TuneRequest(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/search/tune``: fit the fusion's weights from labelled queries, and keep them."""

    queries: Annotated[list[LabelledQuery], Meta(min_length=5, max_length=2000)]
    collection: CollectionName | None = DEFAULT_COLLECTION
    keep: bool = True


class TuneReply(Wire, frozen=True, kw_only=True):
    """nDCG@10 by five-fold cross-validation, before and with the fitted weights."""

    before: float
    after: float
    lexical: float
    dense: float
    weights: dict[str, float]
    kept: bool
    queries: int


# ---- /edge/v1/documents --------------------------------------------------------------------------------------------


class DocumentAdd(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/documents``: the file's bytes in base64 (the CLI reads, the daemon parses in a limited child)."""

    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    content: Base64
    collection: CollectionName = DEFAULT_COLLECTION
    tags: Annotated[list[Tag], Meta(max_length=16)] = []
    date: Annotated[Date | None, Meta(description="When the document is from; null: not known.")] = None


class DocumentSum(Own, frozen=True, kw_only=True):
    """A document's name, and the SHA-256 of the bytes that it would be added with."""

    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class DocumentCheck(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/documents/check``: which of these need not be sent, since adding them would change nothing."""

    documents: Annotated[list[DocumentSum], Meta(max_length=1000)]
    collection: CollectionName = DEFAULT_COLLECTION
    tags: Annotated[list[Tag], Meta(max_length=16)] = []
    date: Date | None = None


class Document(Wire, frozen=True, kw_only=True):
    id: str
    name: str
    collection: str
    format: str  # markdown, text, html, pdf, docx, csv or code
    sha256: str
    characters: int
    chunks: int
    pages: int | None
    added: float  # Unix seconds
    date: str | None = None
    tags: list[str] = []


class DocumentAdded(Wire, frozen=True, kw_only=True):
    document: Document
    unchanged: bool = False  # the same bytes were already there under this name
    warnings: list[str] = []
    embedded: int = 0  # passages whose vectors were computed
    reused: int = 0  # passages whose vectors the older version of the document had


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
    mounted: bool = False  # it came with an index that was mounted, and cannot be changed here


class CollectionList(Wire, frozen=True, kw_only=True):
    collections: list[Collection]


# ---- /edge/v1/index ------------------------------------------------------------------------------------------------


class IndexReport(Wire, frozen=True, kw_only=True):
    """``GET /edge/v1/index``: what the index holds and takes."""

    documents: int
    chunks: int
    windows: int  # vectors of passages
    sentences: int
    coverage: float  # share of the text, without white space, that lies in an embedded window
    embedder: str
    embedder_now: str  # the one that is configured
    file_bytes: int
    free_bytes: int  # of those: given back by compacting
    scan_bytes: int  # of the coarse copy on disk
    scan_ready: bool
    epoch: int
    reembedded: float | None = None  # share that is done, while the index is embedded anew
    note: str = ""  # what the owner should know, with what to do about it


class Compacted(Wire, frozen=True, kw_only=True):
    before_bytes: int
    after_bytes: int


class ExportRequest(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/index/export``: one file in ``EDGE_HOME/exports`` that another box can mount."""

    name: CollectionName
    collections: Annotated[list[CollectionName], Meta(max_length=64, description="Empty: all of them.")] = []
    stream: bool = False


class Progress(Wire, frozen=True, kw_only=True):
    """How far an export is: event ``progress``."""

    done: int  # documents
    total: int


class Exported(Wire, frozen=True, kw_only=True):
    path: str
    size: int  # bytes
    sha256: str
    documents: int
    collections: list[str]
    embedder: str


class MountRequest(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/index/mounts``: a file that was put into ``EDGE_HOME/mounts`` answers beside the box's own."""

    name: CollectionName
    file: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    uids: list[Annotated[int, Meta(ge=0)]] = []
    gids: list[Annotated[int, Meta(ge=0)]] = []


class Mount(Wire, frozen=True, kw_only=True):
    """A mounted index: its collections are asked as ``name`` or, where it has several, ``name-collection``."""

    name: str
    collections: list[str]
    sha256: str
    size: int  # bytes
    documents: int
    embedder: str
    trouble: str = ""  # why it does not answer


class MountList(Wire, frozen=True, kw_only=True):
    mounts: list[Mount]


class ReembedStarted(Wire, frozen=True, kw_only=True):
    """``POST /edge/v1/index/reembed``: goes on in the background; the old vectors answer until it is done."""

    documents: int
    embedder: str

"""The messages between ``edged`` and its children, engine, embedder and reranker, over a socket pair.

Each frame is a 4-byte big-endian length and a MessagePack body. Down go ``load``, ``submit``, ``score``,
``attach``, ``detach``, ``shrink``, ``embed``, ``rerank``, ``cancel``, ``probe``, ``ping``, ``purge`` and ``stop``; up
come ``ready``, ``token``, ``done``, ``scored``, ``vectors``, ``reranked``, ``attached``, ``probed``, ``pong``,
``purged``, ``failed`` and ``stats``. What belongs to a request has its id. The types are data: no object crosses a
process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from edge_runtime.errors import EdgeError, from_wire

MAX_FRAME = 256 * 2**20  # bytes
_HEAD = struct.Struct(">I")


class _Down(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    pass


class _Up(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    pass


# ---- down ----------------------------------------------------------------------------------------------------------


Class = Literal["realtime", "interactive", "batch"]  # priority classes, the most urgent first
CLASSES: tuple[Class, ...] = get_args(Class)
Tier = Literal["live", "memory", "disk", "none"]  # where a shared prefix was found


class Load(_Down, frozen=True, kw_only=True):
    """Load one model; answered by :class:`Ready`, or by :class:`Failed` with id ``load``."""

    path: str
    name: str
    context: int = 4096  # tokens: KV cells of all sequences together, and the most that one may have
    threads: int = 2
    batch: int = 128  # tokens per llama_decode of a prompt
    slots: int = 16  # sequences at once
    itl_target_ms: dict[Class, float] = {}  # what a step may take while such a stream runs; 100 where it is not named
    cache_bytes: int = 64 * 2**20  # host memory for prefixes that no running sequence holds
    snapshots: str = ""  # directory for prefixes kept across restarts; empty: none are
    snapshot_bytes: int = 0  # disk for them
    digest: str = ""  # of the weights, part of every snapshot's key
    tokenizer: str = ""  # the embedder's tokenizer.json; a writer's is inside its weights
    # How an embedder or a reranker reads, from its catalogue entry (models.catalog.Prompt):
    pooling: Literal["mean", "cls", "score"] = "mean"  # score: a cross-encoder
    window: int = 256  # tokens, special ones and the prefix included
    query: str = ""  # put before each window of a query
    passage: str = ""  # put before each window of a passage


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """How to sample. ``temperature`` 0 is greedy."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    stop: list[str] = []
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    ignore_eos: bool = False
    logprobs: int | None = None  # None: none; 0: of the chosen token; n: and the n best
    cache_prompt: bool = True


class Submit(_Down, frozen=True, kw_only=True):
    """Generate after ``prompt``, text that already went through a chat template (special tokens are parsed)."""

    id: str
    prompt: str
    params: Params = Params()
    add_bos: bool = True  # where the model's vocabulary says so
    priority: Class = "interactive"
    domain: str  # whose prompt this is: prefixes are shared within one domain only
    public: str = ""  # the beginning of ``prompt`` that may be shared with every domain
    adapter: str = ""  # name of an attached adapter
    structure: str = ""  # what the text must be, in the form of engine.structured; empty: anything
    deterministic: bool = False  # neighbours must not change a bit of it
    speculate: bool = True
    resume: list[int] = []  # tokens generated before the engine died: they are not sent again


class Score(_Down, frozen=True, kw_only=True):
    """Log-probability of each continuation after a shared prompt; answered by :class:`Scored`."""

    id: str
    prompt: str
    choices: list[str]
    add_bos: bool = True
    priority: Class = "interactive"
    domain: str  # as of :class:`Submit`
    public: str = ""
    adapter: str = ""


class Attach(_Down, frozen=True, kw_only=True):
    """Load a LoRA adapter under a name; answered by :class:`Attached`, or :class:`Failed` (another base)."""

    id: str
    name: str
    path: str
    digest: str  # part of the key of everything that is cached under it


class Detach(_Down, frozen=True, kw_only=True):
    """Free an adapter once no request uses it; answered by :class:`Attached`."""

    id: str
    name: str


class Shrink(_Down, frozen=True, kw_only=True):
    """Hold at most so many bytes of prefixes in host memory from now on."""

    cache_bytes: int


class Embed(_Down, frozen=True, kw_only=True):
    """Embed texts, each of them whole: longer ones are read in overlapping windows. Answered by :class:`Vectors`."""

    id: str
    texts: list[str]
    pool: bool = True  # True: one vector a text (mean over its windows); False: every window its own vector
    kind: Literal["query", "passage"] = "passage"  # which prefix the model wants before it


class Rerank(_Down, frozen=True, kw_only=True):
    """How probable is it that each text answers the query? The first of ``texts`` come first; see :class:`Reranked`."""

    id: str
    query: str
    texts: list[str]
    milliseconds: float  # from the arrival of this message; what is not read by then stays unread


class Cancel(_Down, frozen=True, kw_only=True):
    id: str


class Probe(_Down, frozen=True, kw_only=True):
    """Try the ways out of the seal from inside this process (:mod:`edge_runtime.seal`); answered by :class:`Probed`."""

    id: str


class Ping(_Down, frozen=True, kw_only=True):
    """Are you there? Answered by :class:`Pong` before the next step of the model."""

    id: str


class Purge(_Down, frozen=True, kw_only=True):
    """Forget every cached prompt (KV cells and snapshots): a document that fed one was removed. See :class:`Purged`.

    Requests that are here already go on to their end, from their own cells; nobody else may use those.
    """

    id: str


class Stop(_Down, frozen=True, kw_only=True):
    """Finish and exit 0."""


# ---- up ------------------------------------------------------------------------------------------------------------


class Ready(_Up, frozen=True, kw_only=True):
    """The model is loaded. ``template`` is the chat template inside the file, if it holds one."""

    name: str
    context: int  # tokens
    width: int  # vocabulary size of a writer, dimensions of an embedder
    template: str | None = None
    bos: str = ""
    eos: str = ""
    load_ms: float = 0.0


class TopToken(msgspec.Struct, frozen=True):
    text: bytes
    logprob: float


class Token(_Up, frozen=True, kw_only=True):
    """Text that became final with one step, or some (whole UTF-8 characters; held back while a stop may complete)."""

    id: str
    text: str
    tokens: int  # generated so far
    piece: bytes = b""  # the bytes of this step's token, which may be half a character
    logprob: float | None = None
    top: list[TopToken] = []
    ids: list[int] = []  # the tokens of this message, for :attr:`Submit.resume`

    def then(self, later: Token) -> Token:
        """One message for this one and the next one of the same request; neither has log-probabilities."""
        return Token(
            id=self.id,
            text=self.text + later.text,
            tokens=later.tokens,
            piece=self.piece + later.piece,
            ids=self.ids + later.ids,
        )


class Done(_Up, frozen=True, kw_only=True):
    id: str
    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    prefill_ms: float
    decode_ms: float
    tier: Tier = "none"  # where the cached tokens came from
    diverged: str = ""  # on a miss: the first text of the prompt that differed from the nearest one kept
    drafted: int = 0  # tokens guessed by speculation, and how many of them were right
    accepted: int = 0
    parked: int = 0  # times it had to make room for others


class Scored(_Up, frozen=True, kw_only=True):
    id: str
    logprobs: list[float]  # summed over each choice's tokens
    tokens: list[int]  # how many tokens each choice has
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tier: Tier = "none"


class Vectors(_Up, frozen=True, kw_only=True):
    """Unit vectors, float32 little-endian, row-major: ``counts[i]`` rows for text i, each with what it read."""

    id: str
    width: int
    counts: list[int]
    spans: list[tuple[int, int]]  # per row: characters of its text that this row covers
    data: bytes
    tokens: int


class Reranked(_Up, frozen=True, kw_only=True):
    """A probability for each of the first texts, in their order; there was no time for the others."""

    id: str
    probabilities: list[float]


class Attached(_Up, frozen=True, kw_only=True):
    id: str


class Probed(_Up, frozen=True, kw_only=True):
    id: str
    attempts: list[tuple[str, bool, str]]  # route, refused, detail


class Pong(_Up, frozen=True, kw_only=True):
    id: str


class Purged(_Up, frozen=True, kw_only=True):
    """Nothing that was read before the :class:`Purge` can be found any more: in cells, host memory or on disk.

    Sent within a step of the model, however long others run: the cells of ended requests were overwritten, those of
    running ones were not. These are overwritten when the last request that was here at the purge has ended. Where what
    runs does not fit into the host memory for prefixes while the rest is overwritten, all of it waits until then, or
    until nobody runs; the deterministic lane's cells wait for the end of its request.
    """

    id: str


class Failed(_Up, frozen=True, kw_only=True):
    """The request (or the load) failed; ``code`` is an :class:`edge_runtime.errors.EdgeError` code."""

    id: str
    code: str
    message: str
    param: str = ""  # the field of the request that is at fault, if it is one

    @classmethod
    def of(cls, name: str, error: EdgeError) -> Failed:
        """What ``error`` is on the wire, for the request ``name``."""
        return cls(id=name, code=error.code, message=error.message, param=error.param or "")

    @property
    def error(self) -> EdgeError:
        """What :meth:`of` was given, as far as it was sent."""
        return from_wire(self.code, self.message, self.param or None)


class Stats(_Up, frozen=True, kw_only=True):
    """Sent when something changed, at most ten times a second: what runs and waits, and what a step costs here."""

    running: int
    waiting: int
    cells_used: int
    cells_total: int
    parked: int = 0
    cache_bytes: int = 0  # of prefixes in host memory
    threads: int = 0
    prefill_ms: float = 0.0  # of one more prompt token, as things are
    step_ms: float = 0.0  # of one more token for every running stream
    prefilled: int = 0  # prompt tokens evaluated since the start
    reused: dict[str, int] = {}  # prompt tokens that needed no evaluation, by tier
    resident: int = 0  # bytes (PSS) of this process


Down = Load | Submit | Score | Embed | Rerank | Cancel | Probe | Ping | Purge | Attach | Detach | Shrink | Stop
Up = Ready | Token | Done | Scored | Vectors | Reranked | Probed | Pong | Purged | Attached | Failed | Stats

_encoder = msgspec.msgpack.Encoder()
_down = msgspec.msgpack.Decoder(Down)
_up = msgspec.msgpack.Decoder(Up)


class FrameError(Exception):
    """A frame that cannot be what the other side sent: too long, or not a message."""


def encode(message: Down | Up) -> bytes:
    """One frame: length and body."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise FrameError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _HEAD.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into bodies (sans-io): ``feed`` bytes, iterate what is whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise FrameError(f"a frame announces {length} bytes, over the limit of {MAX_FRAME}")
            if len(self._buffer) < _HEAD.size + length:
                return
            body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            yield body


def decode_down(body: bytes) -> Down:
    try:
        message: Down = _down.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(f"not a message for a child: {error}") from error
    return message


def decode_up(body: bytes) -> Up:
    try:
        message: Up = _up.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(f"not a message from a child: {error}") from error
    return message

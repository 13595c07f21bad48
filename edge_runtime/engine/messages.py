"""The messages between ``edged`` and its two children, engine and embedder, over a socket pair.

Each frame is a 4-byte big-endian length and a MessagePack body. Down go ``load``, ``submit``, ``embed``, ``probe`` and
``cancel``; up come ``ready``, ``token``, ``done``, ``vectors``, ``probed``, ``failed`` and ``stats``, each with the
request's id. The types are data: no object crosses a process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

MAX_FRAME = 256 * 2**20  # bytes
_HEAD = struct.Struct(">I")


class _Down(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    pass


class _Up(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    pass


# ---- down ----------------------------------------------------------------------------------------------------------


class Load(_Down, frozen=True, kw_only=True):
    """Load one model; answered by :class:`Ready`, or by :class:`Failed` with id ``load``."""

    path: str
    name: str
    context: int = 4096  # tokens
    threads: int = 2
    batch: int = 256  # tokens per llama_decode of a prompt: a cancel is seen between two
    tokenizer: str = ""  # the embedder's tokenizer.json; a writer's is inside its weights
    # How an embedder reads, from its catalogue entry (models.catalog.Prompt):
    pooling: Literal["mean", "cls"] = "mean"
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


class Score(_Down, frozen=True, kw_only=True):
    """Log-probability of each continuation after a shared prompt; answered by :class:`Scored`."""

    id: str
    prompt: str
    choices: list[str]


class Embed(_Down, frozen=True, kw_only=True):
    """Embed texts, each of them whole: longer ones are read in overlapping windows. Answered by :class:`Vectors`."""

    id: str
    texts: list[str]
    pool: bool = True  # True: one vector a text (mean over its windows); False: every window its own vector
    kind: Literal["query", "passage"] = "passage"  # which prefix the model wants before it


class Cancel(_Down, frozen=True, kw_only=True):
    id: str


class Probe(_Down, frozen=True, kw_only=True):
    """Try the ways out of the seal from inside this process (:mod:`edge_runtime.seal`); answered by :class:`Probed`."""

    id: str


class Purge(_Down, frozen=True, kw_only=True):
    """Forget every cached prompt (KV cells and snapshots): a document that fed one was removed."""

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
    """Text that became final with one step (whole UTF-8 characters; held back while a stop may complete)."""

    id: str
    text: str
    tokens: int  # generated so far
    piece: bytes = b""  # the bytes of this step's token, which may be half a character
    logprob: float | None = None
    top: list[TopToken] = []


class Done(_Up, frozen=True, kw_only=True):
    id: str
    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    prefill_ms: float
    decode_ms: float


class Scored(_Up, frozen=True, kw_only=True):
    id: str
    logprobs: list[float]  # summed over each choice's tokens
    tokens: list[int]  # how many tokens each choice has


class Vectors(_Up, frozen=True, kw_only=True):
    """Unit vectors, float32 little-endian, row-major: ``counts[i]`` rows for text i, each with what it read."""

    id: str
    width: int
    counts: list[int]
    spans: list[tuple[int, int]]  # per row: characters of its text that this row covers
    data: bytes
    tokens: int


class Probed(_Up, frozen=True, kw_only=True):
    id: str
    attempts: list[tuple[str, bool, str]]  # route, refused, detail


class Purged(_Up, frozen=True, kw_only=True):
    id: str


class Failed(_Up, frozen=True, kw_only=True):
    """The request (or the load) failed; ``code`` is an :class:`edge_runtime.errors.EdgeError` code."""

    id: str
    code: str
    message: str


class Stats(_Up, frozen=True, kw_only=True):
    """Sent when something changed: what runs and waits, and the resident size."""

    running: int
    waiting: int
    cells_used: int
    cells_total: int


Down = Load | Submit | Score | Embed | Cancel | Probe | Purge | Stop
Up = Ready | Token | Done | Scored | Vectors | Probed | Purged | Failed | Stats

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

"""One KV segment as a file: what it holds, and how a damaged one is told from a whole one. Pure: bytes in, values out.

    magic        8 bytes   b"edge-kv\\0"
    version      u16       big-endian, as the next
    header size  u32
    digest       32 bytes  SHA-256 of the header
    header                 MessagePack: whose cells these are, and the SHA-256 and length of the blob
    blob                   what llama_state_seq_get_data wrote, which llama.cpp would take back with any bit flipped

Every byte of a file is covered: a file is as it was written, or it is none. SHA-256 reads 1.5 times as fast as BLAKE2b
where the processor has instructions for it, and most have.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

MAGIC = b"edge-kv\0"
VERSION = 1
MOST_HEADER = 16 * 2**20  # bytes; four million tokens
_HEAD = struct.Struct(">8sHI32s")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment: the cells of ``tokens[start:]``; ``tokens`` is the whole path from the root of the prefix tree."""

    key: str
    domain: str  # whose prompt it was: nobody else's may be answered from it
    adapter: str  # digest of the adapter under which the cells were computed; empty: none
    tokens: tuple[int, ...]
    start: int
    label: str  # class of the prompt, for whoever chooses what to keep
    size: int  # bytes of the blob


class Header(msgspec.Struct, frozen=True, array_like=True):
    """The part of a file that an index needs; ``tokens`` are int32, little-endian."""

    identity: bytes
    domain: str
    adapter: str
    tokens: bytes
    start: int
    label: str
    blob_bytes: int
    blob_digest: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Header)


def identify(facts: str) -> bytes:
    """What the cells depend on beside the tokens, as 32 bytes."""
    return hashlib.sha256(facts.encode()).digest()


def key_of(identity: bytes, *, domain: str, adapter: str, tokens: Sequence[int], start: int) -> str:
    """The name of a segment: 64 hexadecimal digits. Each part is framed, so no two sets of parts can be confused."""
    parts = (identity, domain.encode(), adapter.encode(), _pack(tokens), start.to_bytes(8, "big"))
    digest = hashlib.sha256(b"edge-kv key 1\0")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def encode(entry: Entry, identity: bytes, blob: bytes) -> bytes:
    """What precedes ``blob`` in the file: head and header."""
    header = _encoder.encode(
        Header(
            identity=identity,
            domain=entry.domain,
            adapter=entry.adapter,
            tokens=_pack(entry.tokens),
            start=entry.start,
            label=entry.label,
            blob_bytes=len(blob),
            blob_digest=hashlib.sha256(blob).digest(),
        )
    )
    return _HEAD.pack(MAGIC, VERSION, len(header), hashlib.sha256(header).digest()) + header


def header_size(head: bytes) -> int | None:
    """Bytes of the header that follows ``head``; None where ``head`` does not begin a file of this version."""
    if len(head) < HEAD_BYTES:
        return None
    magic, version, size, _ = _HEAD.unpack_from(head)
    return size if magic == MAGIC and version == VERSION and 0 < size <= MOST_HEADER else None


def decode(head: bytes, header: bytes) -> tuple[Header, Entry] | None:
    """The header, and what it says; None where it is not as it was written."""
    _, _, size, digest = _HEAD.unpack_from(head)
    if len(header) != size or hashlib.sha256(header).digest() != digest:
        return None
    try:
        found = _decoder.decode(header)
    except msgspec.MsgspecError:
        return None
    if len(found.tokens) % 4 or not 0 <= found.start < len(found.tokens) // 4 or found.blob_bytes < 0:
        return None
    tokens = tuple(_unpack(found.tokens))
    key = key_of(found.identity, domain=found.domain, adapter=found.adapter, tokens=tokens, start=found.start)
    entry = Entry(
        key=key,
        domain=found.domain,
        adapter=found.adapter,
        tokens=tokens,
        start=found.start,
        label=found.label,
        size=found.blob_bytes,
    )
    return found, entry


def is_whole(header: Header, blob: bytes) -> bool:
    """Whether ``blob`` is the one that the header was written with."""
    return len(blob) == header.blob_bytes and hashlib.sha256(blob).digest() == header.blob_digest


def _pack(tokens: Sequence[int]) -> bytes:
    packed = array("i", tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(data: bytes) -> array[int]:
    found = array("i")
    found.frombytes(data)
    if sys.byteorder == "big":
        found.byteswap()
    return found

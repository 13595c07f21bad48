"""``python -P -m edge_runtime.knowledge.cut_child``: reads and cuts documents, each in a fork of its own.

The parsers and the tokenizer are loaded once, and sealed in, before the first document comes; starting them anew costs
more than most documents do. Whatever looks at a document's bytes runs in the fork, within limits, and dies with it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_runtime.errors import DocumentError, EdgeError, TooLargeError
from edge_runtime.knowledge.chunking import Offsets, chunk
from edge_runtime.knowledge.documents import Chunk, Limits, ParsedDocument, Span
from edge_runtime.knowledge.parsing import Unreadable, limit, read
from edge_runtime.knowledge.sentences import sentences
from edge_runtime.seal import Access, child_ruleset, seal, seal_child

READERS = ("encoding", "plain", "markup", "pdf", "docx", "csv_tables", "source_code")
HEAD = struct.Struct("<Q")  # before each message: its length in bytes
NICE = 10  # a question goes before a document, and so does the embedder, whose threads wait for each other
LOADED_BYTES = 128 * 2**20  # of address space: libraries and the tokenizer, which are there before a document is
_OUTPUT_PER_CHAR = 12  # bytes: UTF-8 takes four, and there may be many sections and sentences
_READ_BYTES = 2**18


class Sheet(msgspec.Struct, frozen=True):
    """A document as it came."""

    name: str
    content: bytes
    limits: Limits


class Cut(msgspec.Struct, frozen=True, tag=True):
    """A document as parsed, its chunks, and its sentences."""

    document: ParsedDocument
    chunks: list[Chunk]
    sentences: list[Span]


def cut(document: ParsedDocument, offsets: Offsets, limits: Limits) -> Cut:
    """Chunks and sentences of a parsed document; ``offsets`` counts tokens."""
    chunks = chunk(
        document.text,
        document.sections,
        offsets,
        max_tokens=limits.chunk_tokens,
        overlap=limits.chunk_overlap,
    )
    return Cut(document, chunks, sentences(document))


def frames(stream: BinaryIO) -> Iterator[bytes]:
    """The messages of ``stream``, until its end."""
    while len(head := stream.read(HEAD.size)) == HEAD.size:
        (length,) = HEAD.unpack(head)
        body = stream.read(length)
        if len(body) < length:
            return
        yield body


def answer(sheet: Sheet, offsets: Offsets, ruleset: int | None = None) -> bytes:
    """Have ``sheet`` read in a fork, sealed by ``ruleset``; the encoded :class:`Cut` or :class:`Unreadable`."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            # Other documents pass through these.
            os.close(0)
            os.close(1)
            _work(sheet, offsets, theirs, ruleset)
        finally:
            os._exit(0)
    os.close(theirs)
    try:
        body, late = _collect(ours, sheet.limits)
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if late or body is None:
        return _refusal(DocumentError(_slow(sheet)) if late else TooLargeError(_long(sheet)))
    code = os.waitstatus_to_exitcode(status)
    return body or _refusal(DocumentError(_ended(sheet, code)))


def _work(sheet: Sheet, offsets: Offsets, output: int, ruleset: int | None) -> None:
    """In the fork: parse and cut, and write what came of it."""
    memory = sheet.limits.memory_bytes + LOADED_BYTES
    try:
        seal_child(Access(), unsealed_ok=sheet.limits.unsealed_ok, ruleset=ruleset)
        limit(memory, sheet.limits.seconds)
        document = read(sheet.name, sheet.content, text_chars=sheet.limits.text_chars, seconds=sheet.limits.seconds)
        body = msgspec.msgpack.encode(cut(document, offsets, sheet.limits))
    except MemoryError:
        body = _refusal(
            DocumentError(
                f"{sheet.name} needs more than {sheet.limits.memory_bytes // 2**20} MiB of memory to read (a zip "
                "bomb?): it was not read; knowledge.parse_memory_bytes in edge.toml is the limit"
            )
        )
    except EdgeError as error:
        body = _refusal(error)
    except Exception as error:  # noqa: BLE001 (the process's outer edge: whatever a parser raises is the file's fault)
        body = _refusal(DocumentError(f"{sheet.name} is damaged and cannot be read ({type(error).__name__}: {error})"))
    rest = memoryview(body)
    while rest:
        rest = rest[os.write(output, rest) :]


def _collect(source: int, limits: Limits) -> tuple[bytes | None, bool]:
    """What the fork writes until it ends (None: too much), and whether its time was up before that."""
    deadline = time.monotonic() + limits.seconds
    most = limits.text_chars * _OUTPUT_PER_CHAR + 2**21
    body = bytearray()
    poll = select.poll()
    poll.register(source, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return b"", True
        part = os.read(source, _READ_BYTES)
        if not part:
            return bytes(body), False
        body += part
        if len(body) > most:
            return None, False


def _slow(sheet: Sheet) -> str:
    return (
        f"{sheet.name} took more than {sheet.limits.seconds} s to read and was given up: split it, or raise "
        "knowledge.parse_seconds in edge.toml"
    )


def _long(sheet: Sheet) -> str:
    return f"{sheet.name} holds more than {sheet.limits.text_chars} characters: split it"


def _ended(sheet: Sheet, code: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return _slow(sheet)
    if code < 0:
        name = signal.Signals(-code).name
        return (
            f"{sheet.name} ended the parser ({name}): it is damaged, or unpacks to more than "
            f"{sheet.limits.memory_bytes // 2**20} MiB (a zip bomb?); print it to a new file"
        )
    return f"{sheet.name} could not be read within {sheet.limits.memory_bytes // 2**20} MiB of memory: split it"


def _refusal(error: EdgeError) -> bytes:
    return msgspec.msgpack.encode(Unreadable(error.code, error.message))


def main() -> int:
    parser = argparse.ArgumentParser(prog="edge_runtime.knowledge.cut_child", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the embedding model's tokenizer.json")
    parser.add_argument("--unsealed", action="store_true", help="go on where the kernel cannot seal")
    options = parser.parse_args()
    # It forks; each fork gives up that as well.
    seal(Access(read=(options.tokenizer.parent,)), unsealed_ok=options.unsealed)
    os.nice(NICE)
    offsets, fault = _load(options.tokenizer)
    ruleset = child_ruleset(Access())
    output = sys.stdout.buffer
    decoder = msgspec.msgpack.Decoder(Sheet)
    with contextlib.suppress(BrokenPipeError):  # edged is gone: nothing is left to answer
        for body in frames(sys.stdin.buffer):
            reply = answer(decoder.decode(body), offsets, ruleset) if offsets is not None else fault
            output.write(HEAD.pack(len(reply)))
            output.write(reply)
            output.flush()
    return 0


def _load(tokenizer: Path) -> tuple[Offsets | None, bytes]:
    """The token counter, or what every document is refused with; the parsers are imported on the way."""
    # Imported behind the seal: a native library's threads, once running, are reached by none.
    from edge_runtime.knowledge.tokens import token_offsets  # noqa: PLC0415

    for name in READERS:
        importlib.import_module(f"edge_runtime.knowledge.{name}")
    try:
        offsets = token_offsets(tokenizer)
    except EdgeError as error:
        return None, _refusal(error)
    offsets("warm")
    gc.freeze()  # a collection in a fork would copy every page that it looks at
    return offsets, b""


if __name__ == "__main__":
    sys.exit(main())

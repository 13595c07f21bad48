"""Has a file parsed in a child of its own, with limits on memory, time and output; parses nothing itself.

The child gets the bytes as an anonymous file and answers on a pipe: no socket is needed, so it works under the seal.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time

import msgspec

from edge_runtime.errors import DocumentError, TooLargeError, from_wire
from edge_runtime.knowledge.documents import Limits, ParsedDocument
from edge_runtime.knowledge.parse_child import Parsed, Unreadable

_READ_BYTES = 2**18
_OUTPUT_PER_CHAR = 6  # bytes: UTF-8 takes four, and sections may be many
_decoder = msgspec.msgpack.Decoder(Parsed | Unreadable)


async def parse(name: str, content: bytes, limits: Limits) -> ParsedDocument:
    """What ``content`` says: its text, sections and pages.

    Raises:
        DocumentError: empty, not a text, encrypted, a scan, damaged, or too costly to read; the message says which.
        TooLargeError: over ``limits.document_bytes`` or ``limits.text_chars``.
    """
    if not content:
        raise DocumentError(f"{name} is empty: nothing was added")
    if len(content) > limits.document_bytes:
        raise TooLargeError(
            f"{name} has {len(content)} bytes and the limit is {limits.document_bytes}: split it, or raise "
            "knowledge.document_bytes in edge.toml"
        )
    process = await asyncio.to_thread(_start, name, content, limits)
    try:
        body = await asyncio.to_thread(_collect, process, name, limits)
    finally:
        # Also when this task is cancelled: the thread above then reads the end of the pipe.
        process.kill()
    try:
        reply: Parsed | Unreadable = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise DocumentError(_ended(name, process.returncode, limits)) from error
    if isinstance(reply, Unreadable):
        raise from_wire(reply.code, reply.message)
    return reply.document


def _start(name: str, content: bytes, limits: Limits) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-B", "-m", "edge_runtime.knowledge.parse_child"]
    command += [f"--name={name}", f"--memory={limits.memory_bytes}", f"--seconds={limits.seconds}"]
    command += [f"--text-chars={limits.text_chars}"]
    if limits.unsealed_ok:
        command.append("--unsealed")
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LANG") if key in os.environ}
    source = os.memfd_create("document")
    try:
        with open(source, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(source, 0, os.SEEK_SET)
        return subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**kept, "PYTHONUTF8": "1"}
        )
    finally:
        os.close(source)


def _collect(process: subprocess.Popen[bytes], name: str, limits: Limits) -> bytes:
    """The child's output; it is killed at the deadline, and when it says more than it may."""
    if process.stdout is None:
        raise DocumentError(f"{name} could not be read: the parser has no output")
    deadline = time.monotonic() + limits.seconds
    most = limits.text_chars * _OUTPUT_PER_CHAR + 2**20
    body = bytearray()
    with process.stdout as output:
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                process.kill()
                process.wait()
                raise DocumentError(_slow(name, limits))
            part = os.read(output.fileno(), _READ_BYTES)
            if not part:
                break
            body += part
            if len(body) > most:
                process.kill()
                process.wait()
                raise TooLargeError(f"{name} holds more than {limits.text_chars} characters: split it")
    process.wait()
    return bytes(body)


def _slow(name: str, limits: Limits) -> str:
    return (
        f"{name} took more than {limits.seconds} s to read and was given up: split it, or raise "
        "knowledge.parse_seconds in edge.toml"
    )


def _ended(name: str, code: int | None, limits: Limits) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return _slow(name, limits)
    if code is not None and code < 0:
        return (
            f"{name} ended the parser ({signal.Signals(-code).name}): it is damaged, or unpacks to more than "
            f"{limits.memory_bytes // 2**20} MiB (a zip bomb?); print it to a new file"
        )
    return f"{name} could not be read within {limits.memory_bytes // 2**20} MiB of memory: split it"

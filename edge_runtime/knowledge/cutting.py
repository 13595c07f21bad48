"""Has documents read and cut by children that have parsers and tokenizer at hand (:mod:`.cut_child`).

A child reads one document at a time, in a fork with limits; it is started when it is needed, and leaves when idle. It
gets the bytes on a pipe and answers on another: no socket is needed, so it works under the seal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from edge_runtime.errors import DocumentError, EdgeError, TooLargeError, from_wire
from edge_runtime.knowledge.cut_child import HEAD, Cut, Sheet
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.parsing import Unreadable

AT_ONCE = 2  # children: a file that takes long to read does not hold up the next
IDLE_SECONDS = 20.0
_GRACE_SECONDS = 10.0  # beyond a document's own time, for the child to say so
_decoder = msgspec.msgpack.Decoder(Cut | Unreadable)


class _EndedError(Exception):
    """The child is gone, or says nothing."""


class _Reader:
    """One child, started with its first document. Its methods block; :meth:`kill` may be called from any thread."""

    def __init__(self, tokenizer: Path, *, unsealed_ok: bool) -> None:
        self._command = [sys.executable, "-P", "-B", "-m", "edge_runtime.knowledge.cut_child"]
        self._command += [f"--tokenizer={tokenizer}", *(["--unsealed"] if unsealed_ok else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def ask(self, sheet: Sheet) -> Cut:
        """After an _EndedError it is of no use any more.

        Raises:
            _EndedError: the child is gone.
            EdgeError: why there is no document.
        """
        try:
            reply = self._exchange(self._process or self._start(), sheet)
        except BaseException:
            self.end()
            raise
        if isinstance(reply, Unreadable):
            raise from_wire(reply.code, reply.message)
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LANG") if key in os.environ}
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**kept, "PYTHONUTF8": "1"},
        )
        if self._killed:
            process.kill()
        return process

    def _exchange(self, process: subprocess.Popen[bytes], sheet: Sheet) -> Cut | Unreadable:
        if process.stdin is None or process.stdout is None:
            raise _EndedError
        body = msgspec.msgpack.encode(sheet)
        deadline = time.monotonic() + sheet.limits.seconds + _GRACE_SECONDS
        try:
            for part in (HEAD.pack(len(body)), body):
                rest = memoryview(part)
                while rest:
                    rest = rest[os.write(process.stdin.fileno(), rest) :]
            (length,) = HEAD.unpack(_read(process.stdout.fileno(), HEAD.size, deadline))
            reply: Cut | Unreadable = _decoder.decode(_read(process.stdout.fileno(), length, deadline))
        except (BrokenPipeError, msgspec.MsgspecError) as error:
            raise _EndedError from error
        return reply

    def kill(self) -> None:
        """Whoever waits in :meth:`ask` gets an _EndedError."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        if (process := self._process) is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _read(source: int, size: int, deadline: float) -> bytes:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    body = bytearray()
    while len(body) < size:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _EndedError
        part = os.read(source, min(size - len(body), 2**20))
        if not part:
            raise _EndedError
        body += part
    return bytes(body)


class Cutter:
    """The children. For one event loop."""

    def __init__(self, tokenizer: Path, *, unsealed_ok: bool = False, at_once: int = AT_ONCE) -> None:
        self._tokenizer = tokenizer
        self._unsealed_ok = unsealed_ok
        self._turns = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="cutter")
        self._idle: list[_Reader] = []
        self._leaving: asyncio.TimerHandle | None = None

    async def cut(self, name: str, content: bytes, limits: Limits) -> Cut:
        """What ``content`` says, cut into chunks and sentences.

        Raises:
            DocumentError: empty, not a text, encrypted, a scan, damaged, or too costly to read; the message says which.
            TooLargeError: over ``limits.document_bytes`` or ``limits.text_chars``.
            ModelFileError: the embedding model's tokenizer cannot be read.
        """
        if not content:
            raise DocumentError(f"{name} is empty: nothing was added")
        if len(content) > limits.document_bytes:
            raise TooLargeError(
                f"{name} has {len(content)} bytes and the limit is {limits.document_bytes}: split it, or raise "
                "knowledge.document_bytes in edge.toml"
            )
        sheet = Sheet(name, content, limits)
        async with self._turns:
            if self._idle:
                with contextlib.suppress(_EndedError):  # it may have been killed while it was idle
                    return await self._ask(self._idle.pop(), sheet)
            try:
                return await self._ask(_Reader(self._tokenizer, unsealed_ok=self._unsealed_ok), sheet)
            except _EndedError as error:
                raise DocumentError(f"{name} ended its parser: the file is damaged; print it to a new file") from error

    async def _ask(self, reader: _Reader, sheet: Sheet) -> Cut:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, reader.ask, sheet)
        except asyncio.CancelledError:
            reader.kill()
            raise
        except EdgeError:
            self._keep(reader)
            raise
        self._keep(reader)
        return found

    def _keep(self, reader: _Reader) -> None:
        self._idle.append(reader)
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._dismiss)

    def _dismiss(self) -> None:
        while self._idle:
            self._idle.pop().end()

    def close(self) -> None:
        """End the children; nobody may be waiting for one."""
        if self._leaving is not None:
            self._leaving.cancel()
        self._dismiss()
        self._threads.shutdown(wait=False)

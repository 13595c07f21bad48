"""A small real server on a Unix socket that answers with recorded HTTP, byte for byte, and notes what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from edge_runtime import protocol


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(frozen=True, slots=True)
class Script:
    """``pieces`` are written one by one; then the connection is closed, or held until the client leaves."""

    pieces: tuple[bytes, ...]
    hold: bool = False
    read_body: bool = True


def json_reply(value: Any, status: int = 200) -> Script:
    body = msgspec.json.encode(value)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return Script((head.encode() + body,))


def error_reply(status: int, code: str, message: str) -> Script:
    return json_reply(protocol.ErrorReply(error=protocol.ErrorBody(message=message, type="x", code=code)), status)


def stream_reply(events: Iterable[tuple[str | None, Any]], *, hold: bool = False, end: bool = True) -> Script:
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"]
    for name, value in events:
        data = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
        body = (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"
        pieces.append(b"%x\r\n%s\r\n" % (len(body), body))
    if end and not hold:
        pieces.append(b"0\r\n\r\n")
    return Script(tuple(pieces), hold=hold)


@dataclass
class ScriptedDaemon:
    """Listens on ``socket`` in a thread. ``replies`` maps ``"METHOD /path"`` (query left out) to what is sent."""

    socket: Path
    replies: Mapping[str, Script | Callable[[Asked], Script]]
    asked: list[Asked] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)  # a client closed a connection that was held

    def __enter__(self) -> Self:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._run(asyncio.start_unix_server(self._serve, self.socket))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.socket.unlink(missing_ok=True)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _stop(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        method, target, _ = head.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        script = self.replies.get(f"{method} {target.partition('?')[0]}")
        length = int(headers.get("content-length", 0))
        reads = isinstance(script, Script) and not script.read_body
        body = b"" if reads else await reader.readexactly(length)
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        if script is None:
            script = error_reply(404, "not_found", f"nothing is scripted for {method} {target}")
        elif callable(script):
            script = script(asked)
        for piece in script.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if script.hold and not await reader.read(1):
            self.left.set()

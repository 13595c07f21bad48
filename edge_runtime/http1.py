"""One HTTP/1.1 request and its reply over one Unix-domain connection (RFC 9112, through h11).

A connection carries a single request: connecting costs a fraction of a millisecond, and closing it is how the daemon
learns that nobody waits any more. No TCP, no TLS, no redirects, no proxies: nothing here could leave the box.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h11

from edge_runtime.errors import BusyError, DeadlineError, TooLargeError, UnreachableError

READ_BYTES = 64 * 2**10
MAX_REPLY = 256 * 2**20  # bytes of a reply that is read whole
_CONNECT_SECONDS = 5.0  # a full backlog is retried for as long
_HOST = "edged"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str  # path and query, already quoted
    body: bytes = b""
    accept: str = "application/json"

    def encode(self, connection: h11.Connection) -> list[bytes]:
        """The bytes to send, body last and not copied."""
        headers = [("host", _HOST), ("accept", self.accept), ("connection", "close"), ("user-agent", "edge")]
        if self.body:
            headers.append(("content-type", "application/json"))
        if self.body or self.method == "POST":
            headers.append(("content-length", str(len(self.body))))
        head = connection.send(h11.Request(method=self.method, target=self.target, headers=headers)) or b""
        if self.body:
            connection.send_with_data_passthrough(h11.Data(data=self.body))
        connection.send(h11.EndOfMessage())
        return [head, self.body]


class _Source:
    """h11 events read from a socket."""

    def __init__(self, connection: h11.Connection, socket: sockets.socket, silence_s: float | None) -> None:
        self._connection = connection
        self._socket = socket
        self._silence_s = silence_s
        self._ended = False

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while True:
                event = self._connection.next_event()
                if isinstance(event, h11.Event) or event is h11.PAUSED:
                    return event
                self._connection.receive_data(await self._receive())
        except h11.RemoteProtocolError as error:
            if self._ended:
                raise UnreachableError(
                    "the daemon ended the connection in the middle of a reply; its log says why; then ask again"
                ) from error
            raise UnreachableError(
                f"what listens on the socket does not speak HTTP: {error}; is EDGE_SOCKET the socket of edged?"
            ) from error

    async def _receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._silence_s):
                data = await loop.sock_recv(self._socket, READ_BYTES)
        except TimeoutError as error:
            raise DeadlineError(
                f"the daemon has said nothing for {self._silence_s:g} s; is the box overloaded? see: edge requests"
            ) from error
        except ConnectionError:
            data = b""
        self._ended = not data
        return data


class Reply:
    """The head of a reply, and its body as it arrives."""

    def __init__(self, source: _Source, head: h11.Response) -> None:
        self._source = source
        self.status = head.status_code
        headers = {name: value.decode("latin-1") for name, value in head.headers}
        self.type = headers.get(b"content-type", "")
        given = headers.get(b"retry-after", "")
        self.retry_after = int(given) if given.isascii() and given.isdecimal() else None  # seconds

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it came.

        Raises:
            UnreachableError: the connection ended before the body did.
            DeadlineError: nothing came for the client's ``silence_s``.
        """
        while True:
            match await self._source.event():
                case h11.Data(data=data):
                    yield bytes(data)
                case _:  # EndOfMessage: h11 raises where the body is not whole
                    return

    async def read(self) -> bytes:
        """The whole body; TooLargeError past ``MAX_REPLY``."""
        body = bytearray()
        async for data in self.chunks():
            body += data
            if len(body) > MAX_REPLY:
                raise TooLargeError(f"the daemon's reply is longer than {MAX_REPLY} bytes; read it in parts")
        return bytes(body)


@asynccontextmanager
async def exchange(path: Path, request: Request, silence_s: float | None = None) -> AsyncIterator[Reply]:
    """Send ``request`` to the socket at ``path`` and give the reply's head; leaving the context closes the connection.

    The body is sent while the reply is awaited, since a daemon that refuses a large one answers before it has read it.

    Raises:
        UnreachableError: nothing listens there, or what does is not the daemon, or it left in the middle.
        BusyError: the daemon takes no more connections.
        DeadlineError: nothing came for ``silence_s`` seconds.
    """
    connection = h11.Connection(h11.CLIENT)
    parts = request.encode(connection)
    with await _connect(path) as socket:
        sending = asyncio.create_task(_send(socket, parts))
        try:
            source = _Source(connection, socket, silence_s)
            head = await source.event()
            while isinstance(head, h11.InformationalResponse):
                head = await source.event()
            if not isinstance(head, h11.Response):
                raise UnreachableError("the daemon closed the connection without an answer; its log says why")
            yield Reply(source, head)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending


async def _connect(path: Path) -> sockets.socket:
    """A connected socket. A connect to AF_UNIX is done at once or fails; EAGAIN is a full backlog (unix(7))."""
    socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    socket.setblocking(False)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            while True:
                try:
                    socket.connect(str(path))
                except BlockingIOError:
                    await asyncio.sleep(0.02)
                else:
                    return socket
    except TimeoutError as error:
        socket.close()
        raise BusyError(f"the daemon at {path} takes no more connections; try again, or see: edge requests") from error
    except OSError as error:
        socket.close()
        raise UnreachableError(_unreachable(path, error)) from error
    except BaseException:
        socket.close()
        raise


def _unreachable(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"no permission to use {path}; join the socket's group, or ask the owner of the box"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
        return f"no daemon at {path}; start it: systemctl start edged, or: edged, or: edge demo"
    return f"cannot connect to {path}: {error}; is EDGE_SOCKET or EDGE_HOME right?"


async def _send(socket: sockets.socket, parts: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    # A daemon that has seen enough closes; what it said before is still there to read.
    with suppress(ConnectionError):
        for part in parts:
            await loop.sock_sendall(socket, part)

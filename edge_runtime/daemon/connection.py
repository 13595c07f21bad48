"""Below the routes: what is not HTTP, or only half of it, is answered in OpenAI's error shape, logged, and closed.

aiohttp's own refusals are plain text and quote the client's bytes; ours quote none.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, InvalidHeader, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from edge_runtime.daemon import logs
from edge_runtime.daemon.line import Line
from edge_runtime.daemon.peers import unix_peer
from edge_runtime.daemon.refusal import error_response
from edge_runtime.daemon.state import Daemon
from edge_runtime.errors import (
    EdgeError,
    ExpectationError,
    HeadTooLargeError,
    RequestError,
    SlowRequestError,
    TargetTooLongError,
)

TARGET_BYTES = 4096  # of a path with its query; not what one header may have, so that the two can be told apart


def explain(error: HttpProcessingError) -> RequestError:
    """The parser's refusal without the bytes that it quotes."""
    match error:
        case LineTooLong(args=(_, limit, *_)) if limit == TARGET_BYTES:
            return TargetTooLongError(f"the path with its query is longer than {limit} bytes; put it in the body")
        case LineTooLong(args=(_, limit, *_)):
            return HeadTooLargeError(f"a header is longer than {limit} bytes; send a shorter one")
        case HttpProcessingError(message=message) if message.startswith("Too many headers"):
            return HeadTooLargeError("the request has too many headers; send fewer")
        case BadHttpMethod() | BadStatusLine():
            return RequestError(
                "this is not HTTP: the first line is no request; speak plain HTTP/1.1 here, without TLS"
            )
        case InvalidHeader():
            return RequestError("a header is malformed; send NAME: VALUE lines as HTTP/1.1 wants them")
        case _:
            return RequestError("the request is not well-formed HTTP/1.1; check its headers, length and chunks")


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_body", "_daemon", "_partial", "_refused")

    def __init__(self, server: web.Server, daemon: Daemon, **options: Any) -> None:
        super().__init__(server, **options)
        self._daemon = daemon
        self._body: StreamReader = EMPTY_PAYLOAD  # of the latest request
        self._partial = False  # a head has begun and not ended
        self._refused = False  # what came was no request

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count == before:
            self._partial = self._partial or (self._current_request is None and bool(data.strip(b"\r\n")))
            return
        self._partial = False
        if not self._messages:
            return
        message, body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            self._body = body
        elif not self._body.is_eof() and (self._waiter is None or len(self._messages) > 1):
            # The parser lets go of a body that it cannot read, and whoever reads it would wait for ever.
            self._messages.pop()
            # Soon, not now: the end of a chunk before it may just have woken the reader, which then waits once more.
            self._loop.call_soon(self._body.set_exception, web.RequestPayloadError("malformed"))
            self._body = EMPTY_PAYLOAD
            self.close()

    def _process_keepalive(self) -> None:
        waiter = self._waiter
        due = self._loop.time() >= self._next_keepalive_close_time
        if not (self._partial and due and waiter is not None and not waiter.done()):
            super()._process_keepalive()
            return
        self._keepalive_handle = None
        slow = SlowRequestError(
            f"the request's head did not arrive within {self._keepalive_timeout:g} seconds; send it again"
        )
        self._messages.append((_ErrInfo(status=slow.status, exc=slow, message=""), EMPTY_PAYLOAD))
        waiter.set_result(None)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self._partial = False
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = self._refuse(ExpectationError("only Expect: 100-continue is understood; leave the header out"))
        finished = await super().finish_response(request, resp, start_time)
        if self._refused and self.transport is not None and self.transport.can_write_eof():
            # Closed at once, with bytes of the client unread, TCP would take the reply back (RFC 9112, section 9.6).
            self._close = True
            self.transport.write_eof()
            await asyncio.sleep(self._lingering_time)  # ends when the client closes too
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  (aiohttp's signature)
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("a reply has begun, and cannot become another")
        match exc:
            case EdgeError():
                return self._refuse(exc)
            case HttpProcessingError():
                return self._refuse(explain(exc))
            case ConnectionError():  # the request's own line has been written, and nobody is there to read a reply
                raise exc
            case _:
                logs.LOG.error("connection.broken", exc_info=exc)
                return self._refuse(EdgeError("this is a fault of edged; its log says where"))

    def _refuse(self, error: EdgeError) -> web.Response:
        self._refused = True
        line = Line("unknown", self._daemon)
        connection: socket.socket | None = self.transport.get_extra_info("socket") if self.transport else None
        if connection is not None and connection.family == socket.AF_UNIX:
            line.peer = str(unix_peer(connection))
        line.fail(error)
        line.write()
        response = error_response(error, line.key)
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, daemon: Daemon, server: web.Server) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,  # noqa: SLF001  (there is no public way to a protocol of one's own)
        )
        self._daemon = daemon

    def __call__(self) -> RequestHandler:
        return Connection(self, self._daemon, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Serves an application through :class:`Connection`."""

    __slots__ = ("_daemon",)

    def __init__(self, application: web.Application, *, daemon: Daemon, **options: Any) -> None:
        super().__init__(application, **options)
        self._daemon = daemon

    async def _make_server(self) -> web.Server:
        return _Server(self._daemon, await super()._make_server())

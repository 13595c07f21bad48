"""Requests in, replies out: peer, permission, body, the route's function, errors in OpenAI's shape, a log line."""

from __future__ import annotations

import asyncio
import functools
import socket
import time
import uuid
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import hdrs, web

from edge_runtime.daemon import logs
from edge_runtime.daemon.call import Call, Route, encode, parse_body
from edge_runtime.daemon.peers import Peer, tcp_peer, unix_peer
from edge_runtime.daemon.requests import Running
from edge_runtime.daemon.state import DAEMON, Daemon
from edge_runtime.daemon.streaming import EventStream, send_whole
from edge_runtime.errors import (
    AuthenticationError,
    BusyError,
    EdgeError,
    EngineError,
    MethodError,
    NotFoundError,
    StoppedError,
)
from edge_runtime.protocol import ErrorBody, ErrorReply

_GONE = 499  # what nginx logs for a client that left; nobody receives it
_RETRY_AFTER = {BusyError: "2", EngineError: "2"}
_LINGER_SECONDS = 1.0  # what a refused client is still sending is read, and thrown away, for so long


def error_reply(error: EdgeError) -> ErrorReply:
    return ErrorReply(error=ErrorBody(message=error.message, type=error.kind, code=error.code, param=error.param))


def error_response(error: EdgeError, key: str) -> web.Response:
    """An error as a reply of its own. A body that was not read makes the connection useless, so it is closed."""
    response = web.Response(
        status=error.status,
        body=encode(error_reply(error)),
        content_type="application/json",
        headers={"X-Request-Id": key},
    )
    retry = next((after for kind, after in _RETRY_AFTER.items() if isinstance(error, kind)), None)
    if retry is not None:
        response.headers[hdrs.RETRY_AFTER] = retry
    if isinstance(error, AuthenticationError):
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if error.status in (408, 413):
        response.force_close()
    return response


def identify(request: web.Request, daemon: Daemon) -> Peer:
    """Who is at the other end.

    Raises:
        AuthenticationError: a TCP client without the right token.
        PermissionDeniedError: one that was sent here by a rebound name.
    """
    transport = request.transport
    connection: socket.socket | None = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        raise ConnectionResetError("the client is gone")
    if connection.family == socket.AF_UNIX:
        return unix_peer(connection)
    return tcp_peer(request.headers.get(hdrs.AUTHORIZATION), request.headers.get(hdrs.HOST), daemon.token or "")


async def serve(route: Route, request: web.Request) -> web.StreamResponse:
    """One request from its head to the end of its reply."""
    daemon = request.app[DAEMON]
    key = f"req-{uuid.uuid4().hex[:20]}"
    line = _Line(route.kind, key, daemon)
    stream = EventStream(request, key=key, stall_seconds=daemon.config.server.stall_seconds)
    try:
        response = await _answer(route, request, daemon, stream, line)
    except EdgeError as error:
        line.fail(error)
        if stream.started:
            await stream.fail(error_reply(error), None if route.path.startswith("/v1/") else "error")
            return stream.response
        return error_response(error, key)
    except (asyncio.CancelledError, ConnectionError):
        line.status = _GONE
        raise
    except Exception as error:  # the edge of the process as far as this request goes  # noqa: BLE001
        logs.LOG.exception("request.broken", extra={"fields": {"id": key, "route": route.kind}})
        broken = EdgeError(f"this is a fault of edged ({type(error).__name__}); its log has the request {key}")
        line.fail(broken)
        if stream.started:
            await stream.fail(error_reply(broken), None if route.path.startswith("/v1/") else "error")
            return stream.response
        return error_response(broken, key)
    else:
        line.status = response.status
        return response
    finally:
        line.write()


async def _answer(
    route: Route, request: web.Request, daemon: Daemon, stream: EventStream, line: _Line
) -> web.StreamResponse:
    peer = identify(request, daemon)
    line.peer = str(peer)
    daemon.household.check(peer, route.action)
    if daemon.stopping:
        raise EngineError("edged is stopping; try again when it has started again")
    server = daemon.config.server
    body = await parse_body(request, route, most=server.body_bytes, seconds=server.body_seconds)
    entry = Running(
        line.key,
        route.kind,
        peer,
        asyncio.current_task(),
        listed=route.method == "POST",  # what works, not what looks
        open_ended=route.open_ended,
    )
    with daemon.requests.track(entry) as running:
        call = Call(daemon=daemon, request=request, route=route, peer=peer, id=line.key, running=running, stream=stream)
        line.call = call
        try:
            reply = await route.handle(call, body)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not running.cancelled or task is None:
                raise
            task.uncancel()
            raise StoppedError(running.reason) from None
    if isinstance(reply, msgspec.Struct):
        reply = call.reply(reply)
    if isinstance(reply, web.Response):
        return await send_whole(request, reply, server.stall_seconds)
    return reply


class _Line:
    """The log line and the counts of one request."""

    def __init__(self, kind: str, key: str, daemon: Daemon) -> None:
        self.kind = kind
        self.key = key
        self.peer = ""
        self.status = _GONE
        self.code: str | None = None
        self.call: Call | None = None
        self._daemon = daemon
        self._began = time.perf_counter()

    def fail(self, error: EdgeError) -> None:
        self.status = error.status
        self.code = error.code

    def write(self) -> None:
        seconds = time.perf_counter() - self._began
        read, written = (self.call.prompt_tokens, self.call.completion_tokens) if self.call else (0, 0)
        metrics = self._daemon.metrics
        metrics.requests.add(route=self.kind, status=str(self.status))
        metrics.seconds.observe(seconds, route=self.kind)
        if read or written:
            metrics.tokens.add(read, direction="read")
            metrics.tokens.add(written, direction="written")
        fields: dict[str, str | int | float] = {
            "id": self.key,
            "peer": self.peer,
            "route": self.kind,
            "status": self.status,
            "ms": round(seconds * 1000, 1),
            "tokens_in": read,
            "tokens_out": written,
        }
        if self.code is not None:
            metrics.refusals.add(code=self.code)
            fields["code"] = self.code
        logs.info("request", **fields)
        if self.kind not in ("health", "ready", "metrics", "status", "requests"):
            self._daemon.events.publish("request.finished", **fields)


@web.middleware
async def json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The server's own refusals, of routes and methods it does not know, in OpenAI's shape."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
        refusal = error_response(MethodError(f"{request.method} is not for {request.path}; use {allowed}"), "")
        refusal.headers[hdrs.ALLOW] = allowed
        return refusal
    except web.HTTPNotFound:
        return error_response(NotFoundError(f"there is no route {request.path[:200]}; /openapi.json lists them"), "")


def make_application(daemon: Daemon, routes: tuple[Route, ...]) -> web.Application:
    application = web.Application(middlewares=[json_errors])
    application[DAEMON] = daemon
    for route in routes:
        application.router.add_route(route.method, route.path, functools.partial(serve, route))
    return application


def make_runner(application: web.Application) -> web.AppRunner:
    """A request's head, and the next one on a kept connection, must arrive within ``server.header_seconds``."""
    server = application[DAEMON].config.server
    return web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=server.header_seconds,
        lingering_time=_LINGER_SECONDS,
        shutdown_timeout=1.0,
    )

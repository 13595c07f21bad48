"""Requests in, replies out: peer, permission, body, the route's function, errors in OpenAI's shape, a log line."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import hdrs, web

from edge_runtime.daemon import logs
from edge_runtime.daemon.call import Call, Route, parse_body
from edge_runtime.daemon.connection import TARGET_BYTES, Runner
from edge_runtime.daemon.line import GONE, Line
from edge_runtime.daemon.peers import Peer, tcp_peer, unix_peer
from edge_runtime.daemon.refusal import error_reply, error_response
from edge_runtime.daemon.requests import Running
from edge_runtime.daemon.state import DAEMON, Daemon
from edge_runtime.daemon.streaming import EventStream, send_whole
from edge_runtime.errors import EdgeError, EngineError, MethodError, NotFoundError, StoppedError

_LINGER_SECONDS = 1.0  # what a refused client is still sending is read, and thrown away, for so long


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
    line = Line(route.kind, daemon)
    key = line.key
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
        line.status = GONE
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
    route: Route, request: web.Request, daemon: Daemon, stream: EventStream, line: Line
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


@web.middleware
async def json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The server's own refusals, of routes and methods it does not know, in OpenAI's shape."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
        response = _refuse(request, MethodError(f"{request.method} is not for {request.path[:200]}; use {allowed}"))
        if response.status == MethodError.status:
            response.headers[hdrs.ALLOW] = allowed
        return response
    except web.HTTPNotFound:
        return _refuse(request, NotFoundError(f"there is no route {request.path[:200]}; /openapi.json lists them"))


def _refuse(request: web.Request, error: EdgeError) -> web.Response:
    """The refusal of a request that has no route, for a peer that may look at all; its line in the log."""
    daemon = request.app[DAEMON]
    line = Line("unknown", daemon)
    try:
        peer = identify(request, daemon)
        line.peer = str(peer)
        daemon.household.check(peer, "look")
    except EdgeError as refused:
        error = refused
    line.fail(error)
    line.write()
    return error_response(error, line.key)


def make_application(daemon: Daemon, routes: tuple[Route, ...]) -> web.Application:
    application = web.Application(middlewares=[json_errors])
    application[DAEMON] = daemon
    for route in routes:
        application.router.add_route(route.method, route.path, functools.partial(serve, route))
    return application


def make_runner(application: web.Application) -> web.AppRunner:
    """A request's head, and the next one on a kept connection, must arrive within ``server.header_seconds``."""
    server = application[DAEMON].config.server
    return Runner(
        application,
        daemon=application[DAEMON],
        access_log=None,
        max_line_size=TARGET_BYTES,
        handler_cancellation=True,
        keepalive_timeout=server.header_seconds,
        lingering_time=_LINGER_SECONDS,
        shutdown_timeout=1.0,
    )

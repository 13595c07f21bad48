"""``/openapi.json`` (OpenAPI 3.1), made from the table of routes and the types of the protocol, so it cannot differ."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from edge_runtime import protocol
from edge_runtime.daemon.call import Call, Reply, Route

_TEMPLATE = "#/components/schemas/{name}"
_MEDIA = {"text/plain": {"type": "string"}, "application/json": {"type": "object"}}
_RETRY_AFTER = {
    "description": "With 429 and 503: the seconds after which a place is expected to be free.",
    "schema": {"type": "integer", "minimum": 1},
}
_PART = re.compile(r"\{(\w+)\}")


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole description."""
    types = {kind: None for route in routes for kind in (route.body, route.reply, *route.events.values()) if kind}
    ordered = [*types, protocol.ErrorReply]
    found, components = msgspec.json.schema_components(ordered, ref_template=_TEMPLATE)
    schemas = dict(zip(ordered, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edged", "version": version("edge-runtime"), "description": protocol.__doc__ or ""},
        "servers": [{"url": "/", "description": "HTTP/1.1 over run/edged.sock below EDGE_HOME"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "TCP listener only"}},
        },
    }


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(route.path)
    ] + [
        {"name": name, "in": "query", "required": True, "schema": {"type": "integer", "minimum": 0}}
        for name in route.query
    ]
    content: dict[str, Any] = {} if route.reply or route.events else {route.media: {"schema": _MEDIA[route.media]}}
    if route.reply is not None:
        content["application/json"] = {"schema": schemas[route.reply]}
    if route.events:
        content["text/event-stream"] = {"schema": {"anyOf": [schemas[kind] for kind in route.events.values()]}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub('[^a-z0-9]+', '_', route.path.lower())}",
        "x-permission": route.action,
        # The Unix socket knows its peer; the TCP listener wants the token.
        "security": [{}, {"token": []}],
        "parameters": parameters,
        "responses": {
            "200": {"description": "done", "content": content},
            "default": {
                "description": "what went wrong, and what to do about it",
                "headers": {"Retry-After": _RETRY_AFTER},
                "content": {"application/json": {"schema": schemas[protocol.ErrorReply]}},
            },
        },
    }
    if route.body is not None:
        body: dict[str, Any] = {"schema": schemas[route.body]}
        if route.example is not None:
            body["example"] = msgspec.to_builtins(route.example)
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    return operation


@functools.cache
def document() -> bytes:
    from edge_runtime.daemon.routes import ROUTES  # noqa: PLC0415  (that table holds this route too)

    return msgspec.json.encode(describe(ROUTES))


async def show(_call: Call, _: None) -> Reply:
    return web.Response(body=document(), content_type="application/json")


ROUTE = Route(
    method="GET",
    path="/openapi.json",
    kind="openapi",
    action="look",
    summary="This description.",
    handle=show,
    media="application/json",
)

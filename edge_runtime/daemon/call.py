"""One request on its way through the daemon, and the description of a route that every table here is made of."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from aiohttp import web

from edge_runtime import protocol
from edge_runtime.daemon.pace import Pace
from edge_runtime.daemon.peers import Action, Peer
from edge_runtime.daemon.requests import Running
from edge_runtime.daemon.state import Daemon
from edge_runtime.daemon.streaming import EventStream
from edge_runtime.daemon.unsupported import Table, refuse
from edge_runtime.errors import DeadlineError, RequestError, SlowRequestError, TooLargeError

SMALL_BODY = 16 * 2**20  # bytes; only documents may be larger
_INLINE_BYTES = 2**20  # a larger body is decoded in a thread
_FIELD = re.compile(r"field `([^`]+)`")
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_PATTERN = re.compile(r"Expected `str` matching regex '(.*)'")
_LENGTH = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)")
_NAMES = {meta.pattern: meta.description for meta in (protocol.COLLECTION, protocol.ADAPTER, protocol.BACKUP)}
_REMEDIES = (
    ("Invalid base64", "send the bytes in base64 (RFC 4648, section 4), padded, on one line"),
    ("Invalid enum value", "/openapi.json lists those that there are"),
    ("Object contains unknown field", "leave it out, or look in /openapi.json for what it is called"),
    ("Object missing required field", "add it"),
)

encode = msgspec.json.Encoder().encode
Reply = msgspec.Struct | web.StreamResponse
Handle = Callable[["Call", Any], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``body``, ``reply`` and ``events`` are types of the protocol; ``example`` is a body that works."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    kind: str  # the name in logs, metrics and lists of requests
    action: Action
    summary: str
    handle: Handle
    body: type[msgspec.Struct] | None = None
    example: msgspec.Struct | None = None
    reply: type[msgspec.Struct] | None = None
    events: Mapping[str, type[msgspec.Struct]] = field(default_factory=dict)
    refuses: Table | None = None  # fields of the body that are refused by name
    media: str = "text/plain"  # what a reply without a type is
    query: tuple[str, ...] = ()  # names of whole numbers
    large: bool = False  # the body may be as large as ``server.body_bytes``
    open_ended: bool = False  # lasts until the client leaves: a stop does not wait for it


@dataclass(slots=True, kw_only=True)
class Call:
    """What a route's function gets beside the body."""

    daemon: Daemon
    request: web.Request
    route: Route
    peer: Peer
    id: str
    running: Running
    stream: EventStream
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def pace(self) -> Pace:
        """Of one of its texts."""
        running = self.running
        return Pace(self.daemon.metrics, priority=running.priority, route=self.route.kind, arrived=running.started)

    @property
    def administers(self) -> bool:
        return self.daemon.household.allowed(self.peer, "administer")

    @property
    def only_own(self) -> Peer | None:
        """The peer whose things may be seen: None for all of them."""
        return None if self.administers else self.peer

    def reply(self, body: msgspec.Struct, *, status: int = 200) -> web.Response:
        return web.Response(
            status=status, body=encode(body), content_type="application/json", headers={"X-Request-Id": self.id}
        )

    def part(self, name: str) -> str:
        """A named part of the path."""
        return self.request.match_info[name]

    def number(self, name: str) -> int:
        """A whole number of the query.

        Raises:
            RequestError: it is missing or not one.
        """
        given = self.request.query.get(name, "")
        if not given.isascii() or not given.isdecimal() or len(given) > 15:
            raise RequestError(f"the query needs {name}=NUMBER, not negative", param=name)
        return int(given)


@functools.cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(raw: bytes, kind: type[msgspec.Struct]) -> Any:
    """A body as its type.

    Raises:
        RequestError: malformed (the message gives the byte), or a field is missing, unknown or wrong (``param``).
    """
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise RequestError("the body is not JSON that can be read: it is nested too deeply") from None


def _explain(message: str) -> RequestError:
    """msgspec's sentence as ours: the field at fault comes first, and last what to do about it."""
    at = _AT.search(message)
    path = at.group(1) if at else ""
    reason = message[: at.start()] if at else message
    named = _FIELD.search(reason)
    if named:
        path = f"{path}.{named.group(1)}" if path else named.group(1)
    told = _tell(reason)
    return RequestError(f"{path}: {told}" if path else told, param=path or None)


def _tell(reason: str) -> str:
    """What is wrong with a value, in words, with a remedy where msgspec's sentence holds none."""
    if named := _PATTERN.fullmatch(reason):
        pattern = named.group(1)
        words = _NAMES.get(pattern)
        return f"this cannot be a name; write {words.removesuffix('.')}" if words else f"write what matches {pattern}"
    if measured := _LENGTH.fullmatch(reason):
        kind, sign, bound = measured.groups()
        what = ("character" if kind == "str" else "item") + "s" * (bound != "1")
        if sign == "<=":
            return f"it is too long; give at most {bound} {what}"
        return f"it is {'empty' if bound == '1' else 'too short'}; give at least {bound} {what}"
    remedy = next((text for start, text in _REMEDIES if reason.startswith(start)), "")
    return f"{reason}; {remedy}" if remedy else reason


async def read_body(call_request: web.Request, *, limit: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        TooLargeError: it is, or says that it will be, longer than ``limit`` bytes.
        SlowRequestError: it did not arrive within ``seconds``.
    """
    announced = call_request.content_length
    remedy = "send less" if limit == SMALL_BODY else "send less, or raise server.body_bytes"
    too_large = TooLargeError(f"the body is larger than {limit} bytes; {remedy}")
    if announced is not None and announced > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in call_request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise SlowRequestError(f"the body did not arrive within {seconds:g} seconds; send it again") from None
    except web.RequestPayloadError:
        # The server's own words quote the body.
        raise RequestError(
            "the body is not what its headers say: a chunk's size, the length or the compression is wrong"
        ) from None
    return b"".join(parts)


async def parse_body(request: web.Request, route: Route, *, most: int, seconds: float) -> Any:
    """The decoded body, or None for a route without one. Raises as :func:`read_body` and :func:`decode`."""
    if route.body is None:
        return None
    raw = await read_body(request, limit=most if route.large else min(most, SMALL_BODY), seconds=seconds)
    if not raw.strip():
        # A body that has only optional fields may be left out.
        raw = b"{}"
    if len(raw) > _INLINE_BYTES:
        return await asyncio.to_thread(_take, raw, route, route.body)
    return _take(raw, route, route.body)


def _take(raw: bytes, route: Route, kind: type[msgspec.Struct]) -> msgspec.Struct:
    body: msgspec.Struct = decode(raw, kind)
    if route.refuses is not None:
        refuse(raw, route.refuses)
    return body


@contextlib.asynccontextmanager
async def within(milliseconds: int | None, *, spent: float = 0.0) -> AsyncIterator[None]:
    """What is done inside has so long, less the seconds ``spent`` before; None: as long as it takes.

    Raises:
        DeadlineError: it took longer, and was stopped.
    """
    try:
        async with asyncio.timeout(None if milliseconds is None else milliseconds / 1000 - spent) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineError(f"the deadline of {milliseconds} ms passed; allow more, or ask for less") from None

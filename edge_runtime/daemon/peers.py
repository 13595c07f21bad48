"""Who is asking, and what they may do: the peer of a connection and the one permission table.

A Unix socket's peer is named by the kernel (SO_PEERCRED, unix(7)); a TCP peer is whoever shows the token.
"""

from __future__ import annotations

import hmac
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge_runtime.errors import AuthenticationError, PermissionDeniedError

_UCRED = struct.Struct("iII")  # pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h, Linux 4.13; the socket module has no name for it
_MOST_BYTES = 1024  # what the socket module reads at most: 256 groups


@dataclass(frozen=True, slots=True)
class Uid:
    """A local user: the effective uid and all groups at the moment of connecting."""

    uid: int
    groups: frozenset[int]

    def __str__(self) -> str:
        return f"uid {self.uid}"


@dataclass(frozen=True, slots=True)
class Token:
    """Whoever presented the token on the TCP listener."""

    def __str__(self) -> str:
        return "token"


Peer = Uid | Token
Role = Literal["owner", "guest", "stranger"]
Action = Literal[
    "look",  # health, readiness, metrics, openapi, models, status
    "ask",  # chat, completions, embeddings, ask, search, read documents, feedback, own requests
    "administer",  # documents and adapters in and out, events, everybody's requests, probe, backup
]

ALLOWED: Mapping[Role, frozenset[Action]] = {
    "owner": frozenset({"look", "ask", "administer"}),
    "guest": frozenset({"look", "ask"}),
    "stranger": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Household:
    """Whose box this is: ``owner`` and root administer, members of ``group`` ask."""

    owner: int
    group: int

    def role(self, peer: Peer) -> Role:
        match peer:
            case Uid(uid=uid) if uid in (0, self.owner):
                return "owner"
            case Uid(groups=groups) if self.group in groups:
                return "guest"
            case Token():
                return "guest"
            case _:
                return "stranger"

    def allowed(self, peer: Peer, action: Action) -> bool:
        return action in ALLOWED[self.role(peer)]

    def check(self, peer: Peer, action: Action) -> None:
        """
        Raises:
            PermissionDeniedError: the table says no.
        """
        if self.allowed(peer, action):
            return
        if action == "administer":
            remedy = f"ask root or the owner of this box (uid {self.owner})"
        else:
            remedy = f"ask the owner of this box to add you to group {self.group}"
        raise PermissionDeniedError(f"{peer} may not {action} here; {remedy}")


def unix_peer(connection: socket.socket) -> Uid:
    """The user at the other end, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, gid = _UCRED.unpack(raw)
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
    except OSError:  # an old kernel, or a user in more groups than that: the first one counts
        more = b""
    count = len(more) // 4
    return Uid(uid, frozenset({gid, *struct.unpack(f"{count}I", more[: 4 * count])}))


def tcp_peer(authorization: str | None, host: str | None, token: str) -> Token:
    """The peer of a TCP connection, from its headers.

    The Host header must name the loopback interface: a page in a browser whose name was rebound to 127.0.0.1 sends
    its own (DNS rebinding).

    Raises:
        PermissionDeniedError: a foreign Host.
        AuthenticationError: no bearer token, or a wrong one.
    """
    if not local_host(host):
        raise PermissionDeniedError("the Host header names no loopback address; use http://127.0.0.1:PORT")
    kind, _, given = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not given:
        raise AuthenticationError(
            "this listener wants 'Authorization: Bearer TOKEN'; the token is in run/token below EDGE_HOME"
        )
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise AuthenticationError("the bearer token is wrong; the right one is in run/token below EDGE_HOME")
    return Token()


def local_host(host: str | None) -> bool:
    """Whether a Host header names the loopback interface."""
    if not host:
        return False
    name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() in {"localhost", "127.0.0.1", "::1"}

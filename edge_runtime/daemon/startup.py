"""What ``edged`` prepares before it seals itself: its home, its lock, its listeners and its token.

Standard library only: no module that starts a thread may be imported before the seal.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import ConfigError, RefusedError, StorageError
from edge_runtime.paths import Paths

_BACKLOG = 128
_HOME_MODE = 0o750  # the socket's group passes through; what is private is 0700 or 0600 below it
_PRIVATE_MODE = 0o700
_SOCKET_MODE = 0o660


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound and listening; ``token`` is what a TCP client must present."""

    unix: socket.socket
    tcp: socket.socket | None
    token: str | None
    owner: int  # uid that administers, besides root
    group: int  # gid that may ask

    @property
    def tcp_address(self) -> str | None:
        if self.tcp is None:
            return None
        host, port = self.tcp.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def prepare_home(paths: Paths) -> None:
    """Create what is missing of the home; modes of what is already there are left alone, but for the run directory."""
    os.umask(0o077)
    try:
        if not paths.home.is_dir():
            paths.home.mkdir(parents=True)
            paths.home.chmod(_HOME_MODE)
        paths.run.mkdir(exist_ok=True)
        paths.run.chmod(_HOME_MODE)
        # The socket's group is the home's: `run` must let it pass even when root made the directory.
        _give(paths.run, paths.home)
        for private in (paths.models, paths.snapshots, paths.backups, paths.scan, paths.exports, paths.mounts):
            private.mkdir(mode=_PRIVATE_MODE, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{error.filename or paths.home} cannot be prepared: {error.strerror}; "
            "set EDGE_HOME to a directory that this user may write to"
        ) from error


def take_lock(paths: Paths) -> int:
    """Hold the home's lock until this process ends; the descriptor must stay open.

    Raises:
        RefusedError: another daemon runs on this home.
    """
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise RefusedError(
            f"another edged{f' (pid {pid})' if pid else ''} already runs on {paths.home}; "
            "stop it first, or set EDGE_HOME to another directory"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def sweep(paths: Paths) -> None:
    """Remove what a killed backup, restore or export left half done; the home's lock must be held."""
    for folder in (paths.backups, paths.exports):
        for leftover in folder.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)


def open_listeners(paths: Paths, listen: str | None, inherited: Sequence[socket.socket] = ()) -> Listeners:
    """Take the inherited listeners or bind our own; the home's lock must be held.

    Raises:
        ConfigError: ``listen`` is not ADDRESS:PORT on the loopback interface.
        RefusedError: the socket or the port belongs to somebody else.
    """
    unix = next((item for item in inherited if item.family == socket.AF_UNIX), None)
    tcp = next((item for item in inherited if item.family in (socket.AF_INET, socket.AF_INET6)), None)
    if tcp is None and listen is not None:
        tcp = _bind_tcp(listen)
    status = paths.home.stat()
    listener = unix or _bind_unix(paths)
    return Listeners(
        unix=listener,
        tcp=tcp,
        token=read_token(paths) if tcp is not None else None,
        owner=status.st_uid,
        group=paths.socket.stat().st_gid if paths.socket.exists() else status.st_gid,
    )


def _bind_unix(paths: Paths) -> socket.socket:
    path = paths.socket
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        listener.bind(os.fspath(path))
        # Nobody can connect before listen(), so there is no moment with a wider mode.
        path.chmod(_SOCKET_MODE)
        _give(path, paths.home)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise RefusedError(f"the socket {path} cannot be bound: {error.strerror or error}; set EDGE_SOCKET") from error
    listener.setblocking(False)
    return listener


def _give(path: Path, like: Path) -> None:
    """Give ``path`` the owner and group of ``like``, where we may; an unprivileged daemon owns both already."""
    wanted, found = like.stat(), path.stat()
    if os.geteuid() == 0 and (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
        os.chown(path, wanted.st_uid, wanted.st_gid)


def _make_way(path: Path) -> None:
    """Remove a socket that nobody answers on; never one that somebody answers on, and never another kind of file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise RefusedError(f"{path} is there and is not a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                path.unlink(missing_ok=True)
                return
    raise RefusedError(f"another process answers on {path}; stop it, or set EDGE_SOCKET to another path")


def _bind_tcp(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
    except ValueError:
        raise ConfigError(f"--listen {listen}: expected ADDRESS:PORT, as in 127.0.0.1:8080") from None
    if not address.is_loopback or not 0 <= number <= 65535:
        raise ConfigError(f"--listen {listen}: only a loopback address is allowed, as in 127.0.0.1:8080")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), number))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise RefusedError(f"--listen {listen}: {error.strerror or error}; choose another port") from error
    listener.setblocking(False)
    return listener


def read_token(paths: Paths) -> str:
    """The bearer token of the TCP listener, made at the first use; its file is 0600."""
    try:
        token = paths.token.read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        token = ""
    if token:
        paths.token.chmod(0o600)
        return token
    token = secrets.token_urlsafe(32)
    descriptor = os.open(paths.token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token

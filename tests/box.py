"""A real ``edged`` on a home of its own, and verbs to talk to it: plain sockets and ``http.client``."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds until something that should happen counts as never happening


class UnixConnection(http.client.HTTPConnection):
    """``http.client`` over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("edged", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = dial(self._path)


def dial(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        raise
    return connection


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass(frozen=True)
class SentEvent:
    name: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Box:
    """``home`` is the EDGE_HOME; models must be there for ``start`` to become ready."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.home / "run" / "edged.sock"

    @property
    def log(self) -> str:
        return (self.home / "log").read_text("utf-8")

    def start(self, *options: str, ready: bool = True, environment: Mapping[str, str] | None = None) -> Box:
        """Start ``edged`` and wait until it is ready, or (``ready=False``) until it answers at all."""
        world = {**os.environ, "EDGE_HOME": str(self.home), **self.environment, **(environment or {})}
        for name in ("EDGE_CONFIG", "EDGE_SOCKET"):
            world.pop(name, None) if name not in self.environment else None
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edge_runtime.daemon", *options], env=world, stdout=log, stderr=log
            )
        self.wait(lambda: self._reached(ready=ready))
        return self

    def _reached(self, *, ready: bool) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"edged ended with {self.process.returncode}:\n{self.log}"
        with contextlib.suppress(OSError):
            return self.get("/readyz" if ready else "/healthz").status == 200
        return False

    def wait(self, reached: Any, seconds: float = PATIENCE) -> None:
        """Until ``reached()``; fails with the daemon's log where that never happens."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"it did not happen; the log:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run ``edged`` where it is expected to end by itself."""
        world = {**os.environ, "EDGE_HOME": str(self.home), **self.environment}
        command = [sys.executable, "-P", "-m", "edge_runtime.daemon", *options]
        return subprocess.run(command, env=world, capture_output=True, text=True, timeout=PATIENCE)

    # ---- HTTP ------------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """``body`` is sent as it is where it is bytes, else as JSON."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, raw, dict(headers or {}))
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, path: str, body: Any = None) -> Reply:
        return self.request("POST", path, body)

    def delete(self, path: str) -> Reply:
        return self.request("DELETE", path)

    def stream(self, path: str, body: Any = None) -> Iterator[SentEvent]:
        """Server-sent events as they come; closing the iterator hangs up. A body is posted, else it is a GET."""
        connection = UnixConnection(self.socket)
        try:
            connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            yield from events(reply)
        finally:
            connection.close()

    def chat(self, text: str = "Say hello.", **fields: Any) -> Reply:
        body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}
        return self.post("/v1/chat/completions", body)

    def add(self, name: str, content: bytes, collection: str = "default") -> Reply:
        encoded = base64.b64encode(content).decode()
        return self.post("/edge/v1/documents", {"name": name, "content": encoded, "collection": collection})

    # ---- its processes ---------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/edge/v1/status").json
        return found

    def child(self, name: str) -> dict[str, Any]:
        return next(child for child in self.status()["children"] if child["name"] == name)

    def kill_engine(self) -> int:
        """SIGKILL the engine child; its process id."""
        number: int = self.child("engine")["pid"]
        os.kill(number, signal.SIGKILL)
        return number


def events(lines: http.client.HTTPResponse) -> Iterator[SentEvent]:
    name, data = "", []
    for raw in lines:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif not line and data:
            yield SentEvent(name, "\n".join(data))
            name, data = "", []


def link(source: str, target: str) -> None:
    """A hard link where the file system lets us, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def furnish(home: Path, models: Path | None, settings: str = "") -> Path:
    """Make ``home`` an EDGE_HOME with these models (none: without); ``settings`` go on in the table ``[engine]``."""
    home.mkdir(parents=True, exist_ok=True)
    if models is not None:
        shutil.copytree(models, home / "models", copy_function=link)
    # One thread: several boxes share the cores with the tests, and two threads would spin against each other.
    chosen = '[models]\nwriter = "smollm2-135m-instruct"\nembedder = "all-minilm-l6-v2-int8"\n[engine]\nthreads = 1\n'
    (home / "edge.toml").write_text(chosen + settings, "utf-8")
    return home


@contextlib.contextmanager
def prepared(models: Path | None, settings: str = "") -> Iterator[Box]:
    """A box that is not started yet, in a short path of /tmp (sockets have no long ones); removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="box-"))
    box = Box(furnish(root / "home", models, settings))
    try:
        yield box
    finally:
        if box.process is not None and box.process.poll() is None:
            box.stop(signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def running(models: Path | None, settings: str = "", *options: str, ready: bool = True) -> Iterator[Box]:
    """A started box."""
    with prepared(models, settings) as box:
        yield box.start(*options, ready=ready)


_AS_ANOTHER = """
import os, socket, sys
uid, gid, groups, path, method, target = sys.argv[1:]
os.setgroups([int(one) for one in groups.split(",") if one])
os.setgid(int(gid))
os.setuid(int(uid))
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(30)
try:
    connection.connect(path)
except OSError as error:
    sys.exit(type(error).__name__)
head = f"{method} {target} HTTP/1.1\\r\\nHost: edged\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}"
connection.sendall(head.encode())
print(connection.recv(65536).split()[1].decode())
"""


def ask_as(box: Box, method: str, target: str, *, uid: int, gid: int, groups: Sequence[int] = ()) -> str:
    """What another user of this machine gets (root only): the status of a request, or why it could not connect."""
    who = (str(uid), str(gid), ",".join(map(str, groups)))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _AS_ANOTHER, *who, os.fspath(box.socket), method, target],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return (done.stdout or done.stderr).strip()

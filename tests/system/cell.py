"""What the tests of the seal are made of: processes that attack, an outside that listens, and a process to attack."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

INMATE = Path(__file__).with_name("inmate.py")
SPARE_LISTENERS = 4


@dataclass
class Inmate:
    """One process of inmate.py; ``ask`` has it try one thing."""

    process: subprocess.Popen[str]
    control: socket.socket

    @classmethod
    @contextmanager
    def start(cls, seal: str, *, write: Path, native: bool = True) -> Iterator[Self]:
        ours, theirs = socket.socketpair()
        options = {
            "seal": seal,
            "control": theirs.fileno(),
            "listeners": SPARE_LISTENERS,
            "read": [],
            "write": [str(write)],
            "native": native,
        }
        process = subprocess.Popen(
            [sys.executable, "-P", str(INMATE), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        with ours, process:
            inmate = cls(process, ours)
            inmate.hear()
            yield inmate

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait()}"
        return json.loads(line)

    def ask(self, attack: str, *positional: Any, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        print(
            json.dumps({"attack": attack, "positional": positional, **arguments}), file=self.process.stdin, flush=True
        )
        return self.hear()


@dataclass
class Pair:
    """A sealed and a free process, and the directory that both may write."""

    sealed: Inmate
    free: Inmate
    inside: Path

    def assert_only_the_seal_refuses(self, attack: str, *positional: Any, **arguments: Any) -> None:
        free = self.free.ask(attack, *positional, **arguments)
        assert free["through"], f"the control does not work, so this shows nothing: {free}"
        sealed = self.sealed.ask(attack, *positional, **arguments)
        assert sealed["refused"], sealed


@dataclass
class Sink:
    """Somebody outside who listens; ``heard`` says what came since it was last asked."""

    listener: socket.socket

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def heard(self) -> list[bytes]:
        self.listener.settimeout(0)
        found = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return found
            with connection:
                connection.settimeout(10)
                found.append(connection.recv(10))


# What a victim is: it lets anyone trace it that the kernel would let, so that only the seal can be what refuses.
VICTIM = """
import ctypes, json, os, socket, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)  # PR_SET_PTRACER, any
secret = ctypes.create_string_buffer(b"secret in memory")
outside = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
file = open(sys.argv[2])
os.unlink(sys.argv[2])
print(json.dumps({"address": ctypes.addressof(secret), "socket": outside.fileno(), "file": file.fileno()}), flush=True)
sys.stdin.read()
"""


@dataclass
class Victim:
    pid: int
    address: int
    socket: int
    file: int

    @classmethod
    @contextmanager
    def start(cls, port: int, secret: Path) -> Iterator[Self]:
        """Connected to ``port``, with ``secret`` open and unlinked."""
        command = [sys.executable, "-c", VICTIM, str(port), str(secret)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield cls(process.pid, **json.loads(process.stdout.readline()))
            process.communicate()

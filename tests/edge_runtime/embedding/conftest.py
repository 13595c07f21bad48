"""An embedder child as edged starts it, with the other end of its socket."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.engine.messages import Down, Frames, Load, Ready, Stats, Up, decode_up, encode


class Peer:
    """The child's other end."""

    def __init__(self, process: subprocess.Popen[bytes], stream: socket.socket) -> None:
        self.process = process
        self.stream = stream
        self._frames = Frames()
        self._waiting: list[Up] = []
        self.stats: list[Stats] = []

    def send(self, *messages: Down) -> None:
        self.stream.sendall(b"".join(map(encode, messages)))

    def receive(self) -> Up:
        """The next message that is not statistics."""
        while not self._waiting:
            data = self.stream.recv(2**20)
            assert data, f"the child left with {self.process.wait(10)}"
            for message in map(decode_up, self._frames.feed(data)):
                if isinstance(message, Stats):
                    self.stats.append(message)
                else:
                    self._waiting.append(message)
        return self._waiting.pop(0)

    def load(self, files: tuple[Path, Path], **rules: Any) -> Up:
        """``rules``: the fields of ``Load`` that say how the model reads."""
        self.send(Load(path=str(files[0]), tokenizer=str(files[1]), name="minilm", threads=1, **rules))
        return self.receive()


@contextmanager
def started(embedder_files: tuple[Path, Path], turn: int | None = None) -> Iterator[Peer]:
    ours, theirs = socket.socketpair()
    shared = [] if turn is None else [turn]
    roots = sorted({str(path.resolve().parent) for path in embedder_files})
    command = [sys.executable, "-P", "-m", "edge_runtime.embedding", "--fd", str(theirs.fileno()), "--read", *roots]
    command += [part for one in shared for part in ("--turn", str(one))]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno(), *shared], stderr=subprocess.DEVNULL)
    theirs.close()
    ours.settimeout(60)
    try:
        yield Peer(process, ours)
    finally:
        ours.close()
        process.kill()
        process.wait()


@pytest.fixture
def child(embedder_files: tuple[Path, Path]) -> Iterator[Peer]:
    """A fresh one, with nothing loaded."""
    with started(embedder_files) as peer:
        yield peer


@pytest.fixture(scope="module")
def embedder(embedder_files: tuple[Path, Path]) -> Iterator[Peer]:
    """One for many tests, loaded; who ends it takes :func:`child`."""
    with started(embedder_files) as peer:
        assert isinstance(peer.load(embedder_files), Ready)
        yield peer

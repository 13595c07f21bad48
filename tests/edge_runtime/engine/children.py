"""The engine child as tests see it: a real process at the other end of a real socket pair."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from edge_runtime.engine.messages import Done, Down, Failed, Frames, Params, Stats, Submit, Token, Up, decode_up, encode

PROMPT = "<|im_start|>user\nWhat does a pump do?<|im_end|>\n<|im_start|>assistant\n"
LONG = "The pump runs. " * 150  # about 600 tokens


class Child:
    """The test's side: sends messages, gathers answers."""

    def __init__(self, *read: Path) -> None:
        self.end, theirs = socket.socketpair()
        readable = [part for path in read for part in ("--read", str(path))]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge_runtime.engine", "--fd", str(theirs.fileno()), *readable],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.stats: Stats | None = None  # the latest that :meth:`receive` has passed over
        self._frames = Frames()
        self._queue: list[Up] = []

    def send(self, *messages: Down) -> None:
        self.end.sendall(b"".join(map(encode, messages)))

    def receive(self) -> Up | None:
        """The next message that is not statistics; None at the end of the stream."""
        while True:
            while self._queue:
                message = self._queue.pop(0)
                if not isinstance(message, Stats):
                    return message
                self.stats = message
            data = self.end.recv(1 << 16)
            if not data:
                return None
            self._queue += map(decode_up, self._frames.feed(data))

    def until(self, kind: type[Up], name: str) -> list[Up]:
        """Everything up to the ``kind`` (or the failure) of the request ``name``."""
        seen: list[Up] = []
        while True:
            message = self.receive()
            assert message is not None, seen
            seen.append(message)
            if isinstance(message, (kind, Failed)) and getattr(message, "id", "") == name:
                return seen

    def ask(self, prompt: str = PROMPT, name: str = "a", **params: object) -> tuple[list[Token], Done]:
        self.send(
            Submit(id=name, domain="uid:1", prompt=prompt, params=msgspec.convert({"max_tokens": 16, **params}, Params))
        )
        *tokens, done = self.until(Done, name)
        assert isinstance(done, Done), done
        return [token for token in tokens if isinstance(token, Token)], done

    def fail(self, message: Down, name: str = "a") -> Failed:
        self.send(message)
        answer = self.receive()
        assert isinstance(answer, Failed)
        assert answer.id == name
        return answer

    def close(self) -> int:
        self.end.close()
        return self.process.wait(timeout=60)


def text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)

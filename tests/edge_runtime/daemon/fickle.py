"""A child that speaks as an engine does and computes nothing; each of its lives does what a file says.

``hold``: one token for every request. ``finish``: the end of every request. ``fail``: the model cannot be loaded. A
prompt of ``poison`` ends it.
"""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from edge_runtime.engine.messages import Done, Failed, Frames, Load, Ready, Submit, Token, Up, decode_down, encode


def serve(end: socket.socket, manner: str) -> None:
    frames = Frames()

    def send(message: Up) -> None:
        end.sendall(encode(message))

    while data := end.recv(1 << 16):
        for body in frames.feed(data):
            match decode_down(body):
                case Load() if manner == "fail":
                    send(Failed(id="load", code="engine_unavailable", message="not this time"))
                case Load(name=name):
                    send(Ready(name=name, context=8, width=10))
                case Submit(prompt="poison"):
                    os._exit(9)
                case Submit(id=key, resume=known):
                    count = len(known) + 1
                    send(Token(id=key, text="x", tokens=count, ids=[count]))
                    if manner == "finish":
                        send(
                            Done(
                                id=key,
                                reason="stop",
                                prompt_tokens=1,
                                completion_tokens=count,
                                cached_tokens=0,
                                prefill_ms=0,
                                decode_ms=0,
                            )
                        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int)
    parser.add_argument("--lives", type=Path)
    given = parser.parse_args()
    manner, *rest = given.lives.read_text("ascii").split()
    given.lives.write_text(" ".join(rest or [manner]), "ascii")
    serve(socket.socket(fileno=given.fd), manner)

"""``python -P -m edge_runtime.engine --fd N [--turn N] [--read PATH]... [--write PATH]...``: edged's engine child.

Seals itself before anything native is imported: threads that already run would escape the seal.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

from edge_runtime import seal
from edge_runtime.turn import Turn


def main() -> int:
    arguments = argparse.ArgumentParser(prog="edge_runtime.engine", description="The engine child of edged.")
    arguments.add_argument("--fd", type=int, required=True, help="the inherited end of a Unix stream socket pair")
    arguments.add_argument("--read", type=Path, action="append", default=[], help="a directory to read models from")
    arguments.add_argument("--write", type=Path, action="append", default=[], help="a directory to keep snapshots in")
    arguments.add_argument("--turn", type=int, help="the inherited lease on the processor")
    arguments.add_argument("--unsealed", action="store_true", help="go on where the kernel lacks a part of the seal")
    asked = arguments.parse_args()
    end = socket.socket(fileno=asked.fd)
    seal.seal_child(seal.Access(read=tuple(asked.read), write=tuple(asked.write)), unsealed_ok=asked.unsealed)
    # GGML starts a debugger when an assertion fails; here the assertion alone must end the process.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # Ctrl-C at a terminal reaches the whole process group; edged alone decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from edge_runtime.engine.loop import serve  # noqa: PLC0415 - NumPy and llama.cpp come in after the seal

    return serve(end, Turn.free() if asked.turn is None else Turn.at(asked.turn))


if __name__ == "__main__":
    sys.exit(main())

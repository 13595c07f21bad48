"""``python -P -m edge_runtime.embedding --fd N [--turn N] --read DIR...``: the embedder child of ``edged``.

Seals itself before anything else is imported: native libraries start threads that a later seal would not reach.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_runtime.seal import Access, seal_child
from edge_runtime.turn import Turn


def main() -> int:
    parser = argparse.ArgumentParser(prog="edge_runtime.embedding", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the inherited stream socket")
    parser.add_argument("--read", type=Path, nargs="*", default=[], help="directories that hold the models")
    parser.add_argument("--turn", type=int, help="the inherited lease on the processor")
    parser.add_argument("--unsealed", action="store_true", help="go on where the kernel cannot seal")
    options = parser.parse_args()
    seal_child(Access(read=tuple(options.read)), unsealed_ok=options.unsealed)
    # Imported late on purpose: see the module's docstring.
    from edge_runtime.embedding.child import Child  # noqa: PLC0415

    try:
        Child(options.fd, Turn.free() if options.turn is None else Turn.at(options.turn)).serve()
    except (BrokenPipeError, ConnectionResetError):
        return 0  # edged is gone: nothing is left to answer
    return 0


if __name__ == "__main__":
    sys.exit(main())

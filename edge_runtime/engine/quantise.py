"""``python -P -m edge_runtime.engine.quantise SOURCE TARGET FORMAT``: one model file re-quantised.

A process of its own, for llama.cpp ends the process where an assertion fails. No importance matrix: none of the
candidates needs one, and what is lost is measured afterwards (:mod:`edge_runtime.engine.loss`).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path

from edge_runtime.engine import gguf
from edge_runtime.engine.llama import binding, journal
from edge_runtime.errors import EdgeError, ModelFileError

# enum llama_ftype
FORMATS = {"Q8_0": 7, "Q4_K_M": 15, "IQ4_NL": 25, "Q4_0": 2}


def quantise(source: Path, target: Path, file_format: str, *, threads: int) -> None:
    """Write ``source`` to ``target`` in a format of :data:`FORMATS`; the bytes do not depend on ``threads``.

    Raises:
        ModelFileError: the source cannot be read, or its tensors cannot be converted.
    """
    gguf.check(source)
    c = binding()
    journal().last_error = ""
    settings = c.llama_model_quantize_default_params()
    settings.ftype = FORMATS[file_format]
    settings.nthread = threads
    settings.allow_requantize = True
    if c.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)) != 0:
        raise ModelFileError(
            f"{source} cannot be made {file_format}: {journal().last_error or 'llama.cpp gives no reason'}"
        )


def main() -> int:
    arguments = argparse.ArgumentParser(prog="edge_runtime.engine.quantise")
    arguments.add_argument("source", type=Path)
    arguments.add_argument("target", type=Path)
    arguments.add_argument("format", choices=FORMATS)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = arguments.parse_args()
    os.environ["GGML_NO_BACKTRACE"] = "1"
    try:
        quantise(asked.source, asked.target, asked.format, threads=asked.threads)
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m firmware_tools.llama_probe [MODEL]``: does this llama.cpp build load, and decode?

A process of its own, because a build for the wrong processor dies of a signal. Without a model it only loads the
library. Prints one JSON object; exits 1 with a sentence where the logits are not numbers.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import math
import os
import sys
import types
from typing import Any

# Any language model goes on with what it has just read six times; a build that computes wrongly does not.
PROMPT = "The pump stops when the suction pressure is low. " * 6 + "The pump stops when the"
EXPECTED = "suction pressure is low"
TOKENS = 8


def bindings() -> Any:
    """The low-level bindings; the package around them would import much that decoding does not need."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None:
        raise SystemExit("llama-cpp-python is not installed; `edge-firmware build-llama` builds it")
    package = types.ModuleType("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


def decode(llama: Any, model_path: str) -> dict[str, object]:
    """Greedy tokens after :data:`PROMPT`, which is long enough to go through the matrix kernels of a batch."""
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(model_path.encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {model_path}; `edge model verify` says whether it is damaged")
    parameters = llama.llama_context_default_params()
    # One thread: two would spin against each other beside a busy neighbour.
    parameters.n_ctx, parameters.n_threads, parameters.n_threads_batch = 256, 1, 1
    context = llama.llama_init_from_model(model, parameters)
    vocabulary = llama.llama_model_get_vocab(model)
    width = llama.llama_vocab_n_tokens(vocabulary)
    prompt = PROMPT.encode()
    room = (llama.llama_token * 256)()
    count = llama.llama_tokenize(vocabulary, prompt, len(prompt), room, len(room), True, False)
    pending = list(room[:count])
    chosen: list[int] = []
    for _ in range(TOKENS):
        array = (llama.llama_token * len(pending))(*pending)
        status = llama.llama_decode(context, llama.llama_batch_get_one(array, len(pending)))
        if status != 0:
            raise SystemExit(f"llama_decode returned {status}")
        logits = list(ctypes.cast(llama.llama_get_logits_ith(context, -1), ctypes.POINTER(ctypes.c_float))[:width])
        if not all(map(math.isfinite, logits)):
            raise SystemExit("the logits are not finite: this build computes wrongly on this processor")
        chosen.append(max(range(width), key=logits.__getitem__))
        pending = chosen[-1:]
    text = b""
    piece = ctypes.create_string_buffer(64)
    for token in chosen:
        length = llama.llama_token_to_piece(vocabulary, token, piece, len(piece), 0, False)
        text += piece.raw[: max(0, length)]
    written = text.decode("utf-8", "replace")
    if EXPECTED not in written:
        raise SystemExit(f"the model wrote {written!r} instead of {EXPECTED!r}: this build computes wrongly")
    return {"tokens": chosen, "text": written}


def main() -> None:
    """Probe, and print what was found."""
    # A failed assertion in GGML would otherwise start a debugger, and wait for it.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    llama = bindings()
    found: dict[str, object] = {"system": llama.llama_print_system_info().decode()}
    if len(sys.argv) > 1:
        found.update(decode(llama, sys.argv[1]))
    print(json.dumps(found))  # noqa: T201 - the answer of this process


if __name__ == "__main__":
    main()

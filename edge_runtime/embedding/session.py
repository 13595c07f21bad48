"""Loads an ONNX model and its tokenizer, and says in one sentence what is wrong with a file that cannot be loaded."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edge_runtime.errors import ModelFileError


def runtime() -> Any:
    """ONNX Runtime, without its telemetry (an identifier in the home directory, a look for a network).

    Standard error is closed meanwhile: in a sealed process it complains there that it finds no GPU.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        return importlib.import_module("onnxruntime")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_session(onnxruntime: Any, path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads starve the engine child, which shares the cores. The price: 3.1 ms a query instead of 2.2.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: fetch the model again (edge model pull)")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no root but Exception
        raise ModelFileError(f"{path} is damaged or not an ONNX model ({error}): fetch it again") from error


def load_tokenizer(path: Path) -> Any:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: fetch the model again (edge model pull)")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFileError(f"{path} is damaged or not a tokenizer ({error}): fetch it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

"""Looks at a GGUF file's head before llama.cpp sees it, so that a wrong file gets a sentence and not a native error.

Knowingly reads no more than the fixed head (GGUF specification, version 3): the digest in the model store tells whether
every byte is right.
"""

from __future__ import annotations

import struct
from pathlib import Path

from edge_runtime.errors import ModelFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_TENSORS = 1_000_000  # far above any model that a box can hold
MOST_KEYS = 1_000_000
SMALLEST = 1024  # bytes; a model of any use is far larger
_HEAD = struct.Struct("<4sIQQ")
_CURE = "run `edge model verify` to check the store, and `edge model pull` to fetch it again"


def check(path: Path) -> None:
    """Raise where ``path`` cannot be a GGUF model.

    Raises:
        ModelFileError: missing, unreadable, empty, not GGUF, an unknown version, or a head with impossible counts.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            size = file.seek(0, 2)
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read ({error.strerror}); {_CURE}") from error
    if len(head) < _HEAD.size or size < SMALLEST:
        raise ModelFileError(f"the model file {path} ends after {size} bytes: it was cut short; {_CURE}")
    magic, version, tensors, keys = _HEAD.unpack(head)
    if magic != MAGIC:
        raise ModelFileError(f"{path} is not a GGUF model file (it begins with {magic!r}); {_CURE}")
    if version not in VERSIONS:
        raise ModelFileError(
            f"{path} is GGUF version {version}, and this build reads versions 2 and 3; fetch a file of one of these"
        )
    if not 0 < tensors <= MOST_TENSORS or not 0 < keys <= MOST_KEYS:
        raise ModelFileError(f"the head of {path} is damaged ({tensors} tensors, {keys} keys cannot be); {_CURE}")

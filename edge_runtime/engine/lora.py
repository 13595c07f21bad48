"""What a LoRA adapter file (GGUF) is made of, checked before llama.cpp sees it.

llama.cpp refuses most wrong files by itself, and stops the process for some: a key of another type than it expects, a
third dimension, two halves that do not fit each other. Activated adapters (aLoRA) are not supported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.engine import gguf
from edge_runtime.errors import ModelFileError

MOST_RANK = 4096
_KIND = "general.type"
_ARCHITECTURE = "general.architecture"
_ALPHA = "adapter.lora.alpha"
_ACTIVATED = "adapter.alora.invocation_tokens"
# enum ggml_type -> values in a block, bytes of a block
_KINDS = {0: (1, 4), 1: (1, 2), 8: (32, 34), 30: (1, 2)}  # F32, F16, Q8_0, BF16
_A, _B = ".lora_a", ".lora_b"
_PASSED_OVER = "_norm.weight"  # llama.cpp ignores these
_EMBEDDING = "token_embd.weight"  # its two halves are stored the other way round


@dataclass(frozen=True, slots=True)
class Lora:
    """``targets``: each tensor of the base that is changed, and the shape that it must have."""

    architecture: str
    rank: int  # of the largest pair
    targets: Mapping[str, tuple[int, int]]


def read(path: Path) -> Lora:
    """Look at ``path``.

    Raises:
        ModelFileError: it is no GGUF file, no LoRA adapter, damaged, or one that this build does not support.
    """
    contents = gguf.read(path)
    facts = contents.facts
    if facts.get(_KIND) != "adapter" or facts.get("adapter.type") != "lora":
        raise ModelFileError(
            f"{path.name} is not a LoRA adapter (its {_KIND} is {facts.get(_KIND)!r}); choose one that is"
        )
    architecture = facts.get(_ARCHITECTURE)
    if not isinstance(architecture, str):
        raise ModelFileError(f"{path.name} does not say which architecture it is for; convert it again")
    alpha = facts.get(_ALPHA, 0.0)
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise ModelFileError(f"{path.name} has {alpha!r} as {_ALPHA}, which must be a number; convert it again")
    if _ACTIVATED in facts:
        raise ModelFileError(f"{path.name} is an activated adapter (aLoRA), which this build does not support")
    try:
        return _pairs(contents, architecture)
    except ValueError as error:
        raise ModelFileError(f"{path.name} is damaged, or of another kind: {error}; convert it again") from None


def check_fit(lora: Lora, base: gguf.Contents, name: str) -> None:
    """Raise where ``lora`` was not made for the model ``name``, whose weights hold ``base``.

    Raises:
        ModelFileError: another architecture, or a tensor that the base lacks or has in another shape.
    """
    architecture = base.facts.get(_ARCHITECTURE)
    if architecture != lora.architecture:
        raise ModelFileError(
            f"the adapter is for models of architecture {lora.architecture}, and {name} is {architecture}; "
            "choose the model that it was trained on"
        )
    for target, shape in lora.targets.items():
        found = base.tensors.get(target)
        if found is None or found.shape != shape:
            here = "lacks it" if found is None else f"has it as {_dimensions(found.shape)}"
            raise ModelFileError(
                f"the adapter was not made for {name}: it changes {target} of {_dimensions(shape)}, and {name} {here}; "
                "choose the model that it was trained on"
            )


def check_values(path: Path) -> None:
    """Raise where an adapter that :func:`read` accepts would make every logit not a number.

    Raises:
        ModelFileError: a value is infinite or not a number.
    """
    import numpy as np  # noqa: PLC0415 - the daemon, which reads heads alone, does without

    contents = gguf.read(path)
    with path.open("rb") as file:
        for name, tensor in contents.tensors.items():
            if name.endswith(_PASSED_OVER):
                continue
            file.seek(contents.data + tensor.offset)
            values, size = _KINDS[tensor.kind]
            data = file.read(math.prod(tensor.shape) // values * size)
            match tensor.kind:
                case 0:
                    whole = np.isfinite(np.frombuffer(data, "<f4")).all()
                case 1:
                    whole = np.isfinite(np.frombuffer(data, "<f2")).all()
                case 8:  # each block begins with its scale
                    scales = np.frombuffer(data, np.uint8).reshape(-1, size)[:, :2].copy()
                    whole = np.isfinite(scales.view("<f2")).all()
                case _:  # bfloat16: all bits of the exponent set
                    whole = (np.frombuffer(data, "<u2") & 0x7F80 != 0x7F80).all()
            if not whole:
                raise ModelFileError(
                    f"{path.name} holds values in {name} that are no numbers; train or convert it again"
                )


def _pairs(contents: gguf.Contents, architecture: str) -> Lora:
    halves = {name: tensor for name, tensor in contents.tensors.items() if not name.endswith(_PASSED_OVER)}
    targets: dict[str, tuple[int, int]] = {}
    most = 0
    for name, tensor in halves.items():
        _check_extent(contents, name, tensor)
        if not name.endswith((_A, _B)):
            raise ValueError(f"the tensor {name} is no part of a LoRA adapter")
        target = name.removesuffix(_A).removesuffix(_B)
        if target + _A not in halves or target + _B not in halves:
            raise ValueError(f"{target} has one half of its pair alone")
        targets[target], rank = _fit(target, halves[target + _A].shape, halves[target + _B].shape)
        most = max(most, rank)
    if not targets:
        raise ValueError("it changes nothing")
    return Lora(architecture, most, targets)


def _fit(target: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, int], int]:
    """The shape of the tensor that the two halves change, and their rank."""
    if len(a) != 2 or len(b) != 2:
        raise ValueError(f"{target} is changed by halves of {_dimensions(a)} and {_dimensions(b)}, not by matrices")
    if target.endswith(_EMBEDDING):
        shape, ranks = (b[1], a[1]), (a[0], b[0])
    else:
        shape, ranks = (a[0], b[1]), (a[1], b[0])
    if ranks[0] != ranks[1] or not 0 < ranks[0] <= MOST_RANK:
        raise ValueError(f"the halves for {target} have the ranks {ranks[0]} and {ranks[1]}")
    return shape, ranks[0]


def _check_extent(contents: gguf.Contents, name: str, tensor: gguf.Tensor) -> None:
    if tensor.kind not in _KINDS:
        raise ValueError(f"{name} has the type {tensor.kind}; F32, F16, BF16 and Q8_0 are supported")
    values, size = _KINDS[tensor.kind]
    if tensor.shape[0] % values:
        raise ValueError(f"{name} has rows of {tensor.shape[0]}, not a multiple of {values}")
    if contents.data + tensor.offset + math.prod(tensor.shape) // values * size > contents.size:
        raise ValueError(f"the file ends inside {name}")


def _dimensions(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

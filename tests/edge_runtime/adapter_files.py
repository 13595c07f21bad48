"""Writes LoRA adapters in GGUF by hand: small, seeded, and as wrong as a test wants them."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

Fact = str | int | float | Sequence[int]
Tensor = tuple[tuple[int, ...], int, bytes]  # shape (fastest first), enum ggml_type, data
F32 = 0
_ALIGNMENT = 32


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _fact(value: Fact) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + _text(value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case several:
            return struct.pack("<IIQ", 9, 4, len(several)) + struct.pack(f"<{len(several)}I", *several)


def gguf(facts: Mapping[str, Fact], tensors: Mapping[str, Tensor]) -> bytes:
    """A GGUF file, version 3."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(facts))
    head += b"".join(_text(key) + _fact(value) for key, value in facts.items())
    data = b""
    for name, (shape, kind, content) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content + bytes(-len(content) % _ALIGNMENT)
    return head + bytes(-len(head) % _ALIGNMENT) + data


def facts(architecture: str = "llama", **more: Fact) -> dict[str, Fact]:
    return {
        "general.type": "adapter",
        "general.architecture": architecture,
        "adapter.type": "lora",
        "adapter.lora.alpha": 4.0,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def pair(
    target: str, shape: tuple[int, int], *, rank: int = 2, seed: int = 1, strength: float = 0.2
) -> dict[str, Tensor]:
    """Both halves of a change of ``target``, which is ``shape`` in the base."""
    chance = random.Random(f"{seed} {target}")

    def filled(*sides: int) -> Tensor:
        values = array("f", (chance.gauss(0, strength) for _ in range(sides[0] * sides[1])))
        return sides, F32, values.tobytes()

    return {f"{target}.lora_a": filled(shape[0], rank), f"{target}.lora_b": filled(rank, shape[1])}


def small_adapter(seed: int = 1, strength: float = 0.2) -> bytes:
    """One for SmolLM2-135M that changes what it writes."""
    width = (576, 576)
    tensors = {
        name: half
        for layer in range(4)
        for name, half in pair(f"blk.{layer}.attn_q.weight", width, seed=seed, strength=strength).items()
    }
    tensors |= pair("blk.20.ffn_down.weight", (1536, 576), seed=seed, strength=strength)
    return gguf(facts(), tensors)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path

"""A tiny cross-encoder as a real ONNX file: how many of a passage's tokens stand in the query, as a logit.

The file is written field by field (onnx.proto, IR version 8, opset 17), so that no package for making models is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

_FLOAT, _INT64 = 1, 7
ALWAYS = 1.0  # matches of the tokens that end query and passage, taken off the logit


def write(path: Path, *, outputs: int = 1) -> Path:
    """``outputs`` 2: one logit for "no" (always 0) and one for "yes"."""
    nodes = [
        _node("Cast", ["token_type_ids"], ["kinds"], to=_FLOAT),
        _node("Cast", ["attention_mask"], ["mask"], to=_FLOAT),
        _node("Sub", ["one", "kinds"], ["first"]),
        _node("Mul", ["first", "mask"], ["query"]),
        _node("Mul", ["kinds", "mask"], ["passage"]),
        _node("Unsqueeze", ["query", "axis1"], ["query_row"]),
        _node("Unsqueeze", ["passage", "axis2"], ["passage_column"]),
        _node("Mul", ["query_row", "passage_column"], ["both"]),
        _node("Unsqueeze", ["input_ids", "axis1"], ["ids_row"]),
        _node("Unsqueeze", ["input_ids", "axis2"], ["ids_column"]),
        _node("Equal", ["ids_row", "ids_column"], ["same"]),
        _node("Cast", ["same"], ["same_number"], to=_FLOAT),
        _node("Mul", ["same_number", "both"], ["matches"]),
        _node("ReduceSum", ["matches", "axes"], ["count"], keepdims=0),
        _node("Unsqueeze", ["count", "axis1"], ["column"]),
        _node("Sub", ["column", "always"], ["yes"]),
    ]
    result = "yes"
    if outputs == 2:
        nodes += [_node("Sub", ["yes", "yes"], ["no"]), _node("Concat", ["no", "yes"], ["logits"], axis=1)]
        result = "logits"
    constants = [
        _floats("one", [1.0]),
        _floats("always", [ALWAYS]),
        _integers("axis1", [1]),
        _integers("axis2", [2]),
        _integers("axes", [1, 2]),
    ]
    graph = b"".join(
        [
            *(_bytes(1, node) for node in nodes),
            _bytes(2, b"overlap"),
            *(_bytes(5, constant) for constant in constants),
            *(_bytes(11, _value(name, _INT64, ["batch", "length"])) for name in _INPUTS),
            _bytes(12, _value(result, _FLOAT, ["batch", outputs])),
        ]
    )
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17)))
    return path


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int) -> bytes:
    made = [
        _bytes(1, name.encode()) + _number(3, value) + _number(20, 2)  # 2: the attribute is an integer
        for name, value in attributes.items()
    ]
    return b"".join(
        [
            *(_bytes(1, name.encode()) for name in inputs),
            *(_bytes(2, name.encode()) for name in outputs),
            _bytes(4, kind.encode()),
            *(_bytes(5, attribute) for attribute in made),
        ]
    )


def _floats(name: str, values: Sequence[float]) -> bytes:
    return _tensor(name, _FLOAT, len(values), struct.pack(f"<{len(values)}f", *values))


def _integers(name: str, values: Sequence[int]) -> bytes:
    return _tensor(name, _INT64, len(values), struct.pack(f"<{len(values)}q", *values))


def _tensor(name: str, kind: int, count: int, raw: bytes) -> bytes:
    return _number(1, count) + _number(2, kind) + _bytes(8, name.encode()) + _bytes(9, raw)


def _value(name: str, kind: int, shape: Sequence[str | int]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _bytes(2, size.encode()) for size in shape]
    tensor = _number(1, kind) + _bytes(2, b"".join(_bytes(1, size) for size in sizes))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

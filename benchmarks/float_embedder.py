"""Makes the float32 ONNX form of all-MiniLM-L6-v2 out of its published weights, to compare the int8 form with.

Run by the peers' Python, which has ``onnx`` and not the project: ``float_embedder.py WEIGHTS.safetensors MODEL.onnx``.
The graph is BERT's (Devlin et al. 2019), node by node as exporters write it, with nothing fused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, HEADS, WIDTH = 6, 12, 384
_EPSILON = 1e-12
_OPSET, _IR = 20, 10


def read(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file: eight bytes of length, a JSON header, the data."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, told in header.items():
        first, last = (8 + size + at for at in told["data_offsets"])
        kind = {"F32": "<f4", "I64": "<i8"}[told["dtype"]]
        found[name.removeprefix("bert.")] = np.frombuffer(data[first:last], kind).reshape(told["shape"])
    return found


class Graph:
    """Nodes and constants in the order they are added; every method returns the name of its result."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._tensors = tensors

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def node(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        from onnx import helper  # type: ignore[import-not-found]  # the peers' environment has it

        result = result or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def linear(self, value: str, name: str) -> str:
        product = self.node("MatMul", value, self.constant(self._tensors[f"{name}.weight"].T.copy()))
        return self.node("Add", product, self.constant(self._tensors[f"{name}.bias"]))

    def norm(self, value: str, name: str, result: str = "") -> str:
        weights = (self.constant(self._tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", value, *weights, result=result, axis=-1, epsilon=_EPSILON)

    def embed(self) -> str:
        def table(name: str) -> str:
            return self.constant(self._tensors[f"embeddings.{name}_embeddings.weight"])

        length = self.node("Gather", self.node("Shape", "input_ids"), self.constant(np.array([1])))
        zero = self.constant(np.array([0]))
        places = self.node("Slice", table("position"), zero, length, zero)
        words = self.node("Gather", table("word"), "input_ids")
        kinds = self.node("Gather", table("token_type"), "token_type_ids")
        return self.norm(self.node("Add", self.node("Add", words, kinds), places), "embeddings.LayerNorm")

    def mask(self) -> str:
        """(batch, 1, 1, length): 0 where a token is, very low where none is."""
        present = self.node("Cast", "attention_mask", to=1)
        absent = self.node("Sub", self.constant(np.float32(1)), present)
        low = self.node("Mul", absent, self.constant(np.float32(-1e9)))
        return self.node("Unsqueeze", low, self.constant(np.array([1, 2])))

    def layer(self, value: str, number: int, mask: str, result: str = "") -> str:
        name = f"encoder.layer.{number}"

        def heads(part: str, order: list[int]) -> str:
            shape = self.constant(np.array([0, 0, HEADS, WIDTH // HEADS]))
            split = self.node("Reshape", self.linear(value, f"{name}.attention.self.{part}"), shape)
            return self.node("Transpose", split, perm=order)

        scores = self.node("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
        scaled = self.node("Div", scores, self.constant(np.float32((WIDTH // HEADS) ** 0.5)))
        shares = self.node("Softmax", self.node("Add", scaled, mask), axis=-1)
        read = self.node("MatMul", shares, heads("value", [0, 2, 1, 3]))
        joined = self.node("Transpose", read, perm=[0, 2, 1, 3])
        whole = self.node("Reshape", joined, self.constant(np.array([0, 0, WIDTH])))
        attended = self.node("Add", self.linear(whole, f"{name}.attention.output.dense"), value)
        middle = self.norm(attended, f"{name}.attention.output.LayerNorm")
        wide = self.node("Gelu", self.linear(middle, f"{name}.intermediate.dense"))
        out = self.node("Add", self.linear(wide, f"{name}.output.dense"), middle)
        return self.norm(out, f"{name}.output.LayerNorm", result)


def build(tensors: dict[str, Any]) -> Any:
    """An ``onnx.ModelProto`` from token ids to the last hidden state."""
    from onnx import TensorProto, checker, helper, numpy_helper

    graph = Graph(tensors)
    value, mask = graph.embed(), graph.mask()
    for number in range(LAYERS):
        value = graph.layer(value, number, mask, "last_hidden_state" if number == LAYERS - 1 else "")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", WIDTH])
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    whole = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, [output], constants)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    checker.check_model(model)
    return model


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(build(read(Path(sys.argv[1]))).SerializeToString())

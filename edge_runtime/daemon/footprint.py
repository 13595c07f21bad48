"""How much memory a writer takes, told from the head of its weights before they are loaded. Pure.

Left out: a second cache of the same size, which a model has only once it got a deterministic request, and prompts kept
in host memory, which give way where memory is short. That cache counts from when it is there: the engine tells its
size, and the larger of estimate and measurement holds. Until then, room for it is kept for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.engine.gguf import WORDS

# Measured on llama.cpp with vocabularies of 49,152 and 151,936 tokens: what one process takes beside weights and cells.
_PROCESS = 64 * 2**20  # bytes: the interpreter, NumPy, llama.cpp, buffers of the graph
_PER_WORD = 512  # bytes: its text, and its place in each row of logits
_CELL_BYTES = 2  # of one value: keys and values are kept as 16-bit floats

Facts = Mapping[str, str | int | float | bool | None]


def cell_bytes(facts: Facts) -> int | None:
    """Bytes of one token's keys and values, from a model file's keys (GGUF specification, "Standardized key-value
    pairs"); None where they do not tell. Layers with heads of their own number count as if all had the most."""
    kind = facts.get("general.architecture")

    def number(key: str) -> int | None:
        found = facts.get(f"{kind}.{key}")
        return found if type(found) is int and found > 0 else None

    layers, width, heads = number("block_count"), number("embedding_length"), number("attention.head_count")
    if layers is None or width is None or heads is None:
        return None
    kept = number("attention.head_count_kv") or heads
    key = number("attention.key_length") or width // heads
    value = number("attention.value_length") or width // heads
    return layers * kept * (key + value) * _CELL_BYTES


def footprint(facts: Facts, *, weights: int, context: int) -> int | None:
    """Bytes of an engine with a file of ``weights`` bytes and ``context`` cells; None where the file does not tell."""
    cell = cell_bytes(facts)
    if cell is None:
        return None
    trained = facts.get(f"{facts.get('general.architecture')}.context_length")
    cells = min(context, trained) if type(trained) is int and trained > 0 else context
    words = facts.get(WORDS)
    return weights + cell * cells + _PROCESS + _PER_WORD * (words if type(words) is int else 0)

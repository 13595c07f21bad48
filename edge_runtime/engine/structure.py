"""What a text must be, as data: the form of :attr:`edge_runtime.engine.messages.Submit.structure`.

Made in ``edged`` from what :mod:`edge_runtime.engine.schemas` let through, and read in the engine child by
:mod:`edge_runtime.engine.structured`.
"""

from __future__ import annotations

from typing import Any

import msgspec

# How a call of a tool is written: as Qwen 2.5 and the Hermes models were trained to.
OPENING = "<tool_call>"
CLOSING = "</tool_call>"
# Without marks, as coding models like to: JSON at the beginning of the text, perhaps in a fence. Up to the arguments.
BARE = r'\s*(?:```(?:json)?\s*)?\{\s*"name"\s*:\s*"([A-Za-z0-9_-]{1,64})"\s*,\s*"arguments"\s*:'


class Document(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="document"):
    """One JSON document. ``step`` is about the most characters by which one token can lengthen the shortest end."""

    schema: dict[str, Any]
    step: int = 0


class Function(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    parameters: dict[str, Any]  # the schema of its arguments


class Arguments(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="arguments"):
    """The rest of a call without marks, from its arguments on."""

    parameters: dict[str, Any]
    step: int = 0


class Calls(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="calls"):
    """Calls of tools: ``required``, one from the first token on (``many``: several); else text, in which each call that
    begins is whole and right."""

    functions: list[Function]
    required: bool = False
    many: bool = False
    step: int = 0


Structure = Document | Arguments | Calls

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Structure] = msgspec.json.Decoder(Structure)


def encode(structure: Structure) -> str:
    return _encoder.encode(structure).decode()


def decode(text: str) -> Structure:
    """Raises msgspec.DecodeError, or RecursionError where it is nested too deeply: not what :func:`encode` wrote."""
    return _decoder.decode(text)

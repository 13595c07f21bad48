"""Looks at a GGUF file before llama.cpp sees it, so that a wrong file gets a sentence and not a native error.

A model's weights are looked at no further than the fixed head (GGUF specification, version 3): the digest in the model
store tells whether every byte is right. :func:`read` goes on to the keys and tensors, of a file that nobody vouches
for as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from edge_runtime.errors import ModelFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_TENSORS = 1_000_000  # far above any model that a box can hold
MOST_KEYS = 1_000_000
SMALLEST = 1024  # bytes; a model of any use is far larger
MOST_TEXT = 2**20  # bytes of one string that is kept
MOST_DIMENSIONS = 4
WORDS = "tokenizer.ggml.tokens"
_HEAD = struct.Struct("<4sIQQ")
# enum gguf_type: 8 is a string, 9 an array; an array holds no arrays.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9
_CURE = "run `edge model verify` to check the store, and `edge model pull` to fetch it again"
_COPY = "copy it here again"
_T = TypeVar("_T")


def check(path: Path, cure: str = _CURE) -> None:
    """Raise where ``path`` cannot be a GGUF model; ``cure`` ends the message.

    Raises:
        ModelFileError: missing, unreadable, empty, not GGUF, an unknown version, or a head with impossible counts.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            size = file.seek(0, 2)
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read ({error.strerror}); {cure}") from error
    if len(head) < _HEAD.size or size < SMALLEST:
        raise ModelFileError(f"the model file {path} ends after {size} bytes: it was cut short; {cure}")
    magic, version, tensors, keys = _HEAD.unpack(head)
    if magic != MAGIC:
        raise ModelFileError(f"{path} is not a GGUF model file (it begins with {magic!r}); {cure}")
    if version not in VERSIONS:
        raise ModelFileError(
            f"{path} is GGUF version {version}, and this build reads versions 2 and 3; fetch a file of one of these"
        )
    if not 0 < tensors <= MOST_TENSORS or not 0 < keys <= MOST_KEYS:
        raise ModelFileError(f"the head of {path} is damaged ({tensors} tensors, {keys} keys cannot be); {cure}")


@dataclass(frozen=True, slots=True)
class Tensor:
    """``shape`` has the fastest dimension first, as ggml's ``ne``; ``kind`` is an ``enum ggml_type``."""

    shape: tuple[int, ...]
    kind: int
    offset: int  # bytes, from where the data begins


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file's head says. Of an array, ``facts`` has only the key, with None."""

    facts: Mapping[str, str | int | float | bool | None]
    tensors: Mapping[str, Tensor]
    data: int  # offset at which the tensors' data begins
    size: int  # bytes of the file


class _Reader:
    """Takes values off a file, none of which may lie behind its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size

    @property
    def place(self) -> int:
        return self._file.tell()

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError(f"it ends inside a value, after {self.size} bytes")
        return data

    def number(self, layout: str) -> int | float | bool:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        found: int | float | bool = value
        return found

    def count(self, layout: str = "<Q") -> int:
        return int(self.number(layout))

    def text(self) -> str:
        size = self.count()
        if size > MOST_TEXT:
            raise ValueError(f"a string of {size} bytes cannot be")
        return self.take(size).decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        if count > self.size - self.place:
            raise ValueError(f"it ends inside a value, after {self.size} bytes")
        self._file.seek(count, 1)

    def value(self) -> str | int | float | bool | None:
        kind = self.count("<I")
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise ValueError(f"a value of type {kind} cannot be")
        of, count = self.count("<I"), self.count()
        if of in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[of]))
        elif of == _STRING:
            for _ in range(count):
                self.skip(self.count())
        else:
            raise ValueError(f"an array of type {of} cannot be")
        return None

    def tensor(self) -> Tensor:
        dimensions = self.count("<I")
        if not 0 < dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions cannot be")
        shape = tuple(self.count() for _ in range(dimensions))
        return Tensor(shape, self.count("<I"), self.count())


def read(path: Path) -> Contents:
    """All that the head of ``path`` says.

    Raises:
        ModelFileError: as :func:`check`, and where the head does not hold what it announces.
    """
    return _open(path, _read, _COPY)


def outline(path: Path) -> Mapping[str, str | int | float | bool | None]:
    """The keys before the vocabulary, and under ``WORDS`` how many tokens that has: what tells a model's size.

    Reads some kilobytes, where :func:`read` goes through every token of the vocabulary.

    Raises:
        ModelFileError: as :func:`read`.
    """
    return _open(path, _outline, _CURE)


def _open(path: Path, take: Callable[[_Reader], _T], cure: str) -> _T:
    check(path, cure)
    try:
        with path.open("rb") as file:
            return take(_Reader(file, path.stat().st_size))
    except OSError as error:
        raise ModelFileError(f"the file {path} cannot be read ({error.strerror}); {cure}") from error
    except ValueError as error:
        raise ModelFileError(f"the file {path} is damaged: {error}; {cure}") from error


def _outline(reader: _Reader) -> Mapping[str, str | int | float | bool | None]:
    _, _, _, key_count = _HEAD.unpack(reader.take(_HEAD.size))
    facts: dict[str, str | int | float | bool | None] = {}
    for _ in range(key_count):
        key = reader.text()
        if key == WORDS:
            _array, _of = reader.count("<I"), reader.count("<I")
            return {**facts, key: reader.count()}
        facts[key] = reader.value()
    return facts


def _read(reader: _Reader) -> Contents:
    _, _, tensor_count, key_count = _HEAD.unpack(reader.take(_HEAD.size))
    facts: dict[str, str | int | float | bool | None] = {}
    for _ in range(key_count):
        key = reader.text()
        if key in facts:
            raise ValueError(f"it has the key {key} twice")
        facts[key] = reader.value()
    tensors: dict[str, Tensor] = {}
    for _ in range(tensor_count):
        name = reader.text()
        if name in tensors:
            raise ValueError(f"it has the tensor {name} twice")
        tensors[name] = reader.tensor()
    alignment = facts.get("general.alignment", 32)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise ValueError(f"an alignment of {alignment} cannot be")
    return Contents(facts, tensors, -(-reader.place // alignment) * alignment, reader.size)

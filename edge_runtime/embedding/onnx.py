"""A sentence encoder in ONNX: token ids in, unit vectors out, pooled as in its training (Reimers & Gurevych 2019).

Knows one shape of model: ``input_ids``, ``attention_mask`` and maybe ``token_type_ids`` to a last hidden state.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edge_runtime.embedding.session import load_session, load_tokenizer, runtime
from edge_runtime.embedding.windows import OVERLAP_TOKENS, Matrix, Window, cut, unit
from edge_runtime.errors import ModelFileError

KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
LEAST_TEXT = 16  # tokens of text that a window must have room for, beside special tokens and prefix

Kind = Literal["query", "passage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a model reads text, as its catalogue entry says: see ``models.catalog.Prompt``."""

    pooling: Literal["mean", "cls"] = "mean"  # over all tokens, or the first one's hidden state
    window: int = 256  # tokens, special ones and the prefix included
    query: str = ""
    passage: str = ""

    def prefix(self, kind: Kind) -> str:
        return self.query if kind == "query" else self.passage


@dataclass(frozen=True, slots=True)
class Piece:
    """One window of one text, ready for the model."""

    ids: list[int]  # with the special tokens and the prefix
    window: Window


class Encoder:
    """One loaded model with its tokenizer."""

    def __init__(self, path: Path, tokenizer: Path, *, threads: int, reading: Reading | None = None) -> None:
        """Raises ModelFileError: a file is missing, damaged, or not a sentence encoder, or cannot read as it should."""
        self._reading = reading or Reading()
        self._tokenizer = load_tokenizer(tokenizer)
        onnxruntime = runtime()
        self._session = load_session(onnxruntime, path, threads)
        self._inputs = {item.name for item in self._session.get_inputs()}
        shape = self._session.get_outputs()[0].shape
        if not {"input_ids", "attention_mask"} <= self._inputs <= KNOWN_INPUTS or len(shape) != 3:
            raise ModelFileError(f"{path} is not a sentence encoder: choose an embedding model (edge model list)")
        self.width = int(shape[2])
        self._head, self._tail = _frame(self._tokenizer)
        self._room = self._reading.window - len(self._head) - len(self._tail)
        self._shrinking = onnxruntime.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._check(path)

    def read(self, text: str, kind: Kind = "passage") -> list[Piece]:
        """The windows of ``text``; together they hold all its tokens, and each begins with the prefix of ``kind``."""
        # The tokenizer refuses unpaired surrogates; one character stands for one, so that offsets stay.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        prefix, ids, offsets = self._split(self._reading.prefix(kind), clean)
        size = self._room - len(prefix)
        return [
            Piece([*self._head, *prefix, *ids[window.first : window.last], *self._tail], window)
            for window in cut(offsets, len(text), size=size, overlap=min(OVERLAP_TOKENS, size // 2))
        ]

    def _split(self, prefix: str, text: str) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """The prefix's tokens, the text's, and the characters of ``text`` that each of the latter stands for.

        They are cut as one string, as in training: where one token holds the end of the one and the beginning of the
        other, it is the text's.
        """
        encoding = self._tokenizer.encode(prefix + text, add_special_tokens=False)
        ids, offsets, skip = encoding.ids, encoding.offsets, len(prefix)
        if not skip:
            return [], ids, offsets
        first = next((index for index, (_, end) in enumerate(offsets) if end > skip), len(ids))
        return ids[:first], ids[first:], [(max(start - skip, 0), end - skip) for start, end in offsets[first:]]

    def encode(self, batch: Sequence[Sequence[int]], *, shrink: bool = False) -> Matrix:
        """Unit vectors (n, width), float32, for n sequences of token ids; shorter ones are padded and masked."""
        longest = max(len(ids) for ids in batch)
        ids = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feed: dict[str, NDArray[np.int64]] = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(ids)
        hidden = self._session.run(None, feed, self._shrinking if shrink else None)[0]
        if self._reading.pooling == "cls":
            return unit(hidden[:, 0])
        weights = mask[..., None].astype(np.float32)
        return unit((hidden * weights).sum(axis=1) / weights.sum(axis=1))

    def _check(self, path: Path) -> None:
        """That the windows can be read; the run also allocates, so that a question does not pay for it."""
        window = self._reading.window
        if self._reading.pooling == "cls" and not self._head:
            raise ModelFileError(
                f"{path} has no token before a text: prompt.pooling of its catalogue entry must be mean"
            )
        for kind in get_args(Kind):
            prefix = self._reading.prefix(kind)
            if self._room - len(self._split(prefix, "")[0]) < LEAST_TEXT:
                raise ModelFileError(
                    f"{path}: a window of {window} tokens has no room for {LEAST_TEXT} tokens of text beside "
                    f"prompt.{kind} ({prefix!r}): raise prompt.window in its catalogue entry"
                )
        try:
            self.encode([[*self._head, *[0] * self._room, *self._tail]])
        except Exception as error:  # onnxruntime's errors share no root but Exception
            raise ModelFileError(
                f"{path} cannot read {window} tokens at once ({error}): lower prompt.window in its catalogue entry"
            ) from error

    def settle(self) -> None:
        """Give the memory of past large batches, and of loading, back to the system."""
        self.encode([[*self._head, *self._tail]], shrink=True)
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; elsewhere free() returns memory by itself
        if trim is not None:
            trim(0)


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    encoding = tokenizer.encode("a")
    specials = [bool(flag) for flag in encoding.special_tokens_mask]
    first = specials.index(False)
    last = len(specials) - specials[::-1].index(False)
    return list(encoding.ids[:first]), list(encoding.ids[last:])

"""A cross-encoder in ONNX: a query and a passage read together, the probability that the passage answers out.

Nogueira & Cho, "Passage Re-ranking with BERT" (2019). Of a passage that does not fit behind the query, the end is not
read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.embedding.onnx import KNOWN_INPUTS
from edge_runtime.embedding.session import load_session, load_tokenizer, runtime
from edge_runtime.embedding.windows import Matrix
from edge_runtime.engine.messages import Rerank, Reranked
from edge_runtime.errors import ModelFileError

QUERY_TOKENS = 96  # of a longer query only these are read
HEAD = 6  # passages that are prepared together: the first ones are scored before the next are looked at
BATCH_TOKENS = 1024  # padded tokens a run
_LONGEST_WORD = 16  # characters for each token, beyond which a passage is cut before it is tokenised
_LEAST_WINDOW = 32  # tokens


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a passage, ready for the model; ``kinds`` is 0 for the query's tokens and 1 for the passage's."""

    ids: list[int]
    kinds: list[int]


class CrossEncoder:
    """One loaded model with its tokenizer."""

    def __init__(self, path: Path, tokenizer: Path, *, threads: int, window: int) -> None:
        """Raises ModelFileError: a file is missing, damaged, no cross-encoder, or cannot read ``window`` tokens."""
        if window < _LEAST_WINDOW:
            raise ModelFileError(
                f"prompt.window is {window} in the catalogue entry of {path}: give {_LEAST_WINDOW} or more"
            )
        self._tokenizer = load_tokenizer(tokenizer)
        self._session = load_session(runtime(), path, threads)
        self._inputs = {item.name for item in self._session.get_inputs()}
        shape = self._session.get_outputs()[0].shape
        if not {"input_ids", "attention_mask"} <= self._inputs <= KNOWN_INPUTS or len(shape) != 2:
            raise ModelFileError(f"{path} is not a cross-encoder: choose a reranker (edge model list)")
        self._window = window
        try:
            self.score([Pair([0] * window, [0] * window)])
        except Exception as error:  # onnxruntime's errors share no root but Exception
            raise ModelFileError(
                f"{path} cannot read {window} tokens at once ({error}): lower prompt.window in its catalogue entry"
            ) from error

    def read(self, query: str, text: str) -> Pair:
        """Never longer than the window, however long either is."""
        short = self._shorten(_clean(query))
        encoding = self._tokenizer.encode(short, _clean(text[: _LONGEST_WORD * self._window]))
        ids, kinds = encoding.ids, encoding.type_ids
        if len(ids) > self._window:  # the last token is the one that ends a pair
            ids, kinds = [*ids[: self._window - 1], ids[-1]], [*kinds[: self._window - 1], kinds[-1]]
        return Pair(ids, kinds)

    def _shorten(self, query: str) -> str:
        most = min(QUERY_TOKENS, self._window // 2)
        ends = self._tokenizer.encode(query[: _LONGEST_WORD * most], add_special_tokens=False).offsets
        return query[: ends[most - 1][1]] if len(ends) > most else query[: _LONGEST_WORD * most]

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The probability of each pair; shorter ones are padded and masked."""
        longest = max(len(pair.ids) for pair in pairs)
        ids = np.zeros((len(pairs), longest), np.int64)
        mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
        for row, pair in enumerate(pairs):
            ids[row, : len(pair.ids)] = pair.ids
            kinds[row, : len(pair.ids)] = pair.kinds
            mask[row, : len(pair.ids)] = 1
        feed: dict[str, NDArray[np.int64]] = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = kinds
        return _probabilities(self._session.run(None, feed)[0])


def _probabilities(logits: Matrix) -> list[float]:
    """Of one output a row, its logistic; of two, the softmax of the second: no and yes."""
    table = np.asarray(logits, np.float64)
    margin = table[:, 0] if table.shape[1] == 1 else table[:, -1] - table[:, 0]
    return [float(value) for value in 1.0 / (1.0 + np.exp(-np.clip(margin, -40.0, 40.0)))]


def _clean(text: str) -> str:
    """The tokenizer refuses unpaired surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(slots=True)
class Ordering:
    """A ``rerank`` request on its way: a few passages at a time, the first ones first, until its time is over."""

    request: Rerank
    ends: float  # monotonic seconds
    token_seconds: float = 0.0  # what one padded token cost lately; 0: not known
    done: dict[int, float] = field(default_factory=dict)
    _batches: Iterator[list[tuple[int, Pair]]] = field(default_factory=lambda: iter(()))

    @classmethod
    def of(cls, request: Rerank, encoder: CrossEncoder, *, token_seconds: float = 0.0) -> Ordering:
        order = cls(request, time.monotonic() + request.milliseconds / 1000, token_seconds)
        order._batches = _batches(request, encoder)
        return order

    def advance(self, encoder: CrossEncoder) -> bool:
        """Run one batch; False when nothing is left, or no time for what is."""
        if time.monotonic() >= self.ends:
            return False
        batch = next(self._batches, None)
        began = time.monotonic()
        if batch is None:
            return False
        tokens = len(batch) * max(len(pair.ids) for _, pair in batch)
        if began + tokens * self.token_seconds > self.ends:
            return False
        scored = encoder.score([pair for _, pair in batch])
        self.done.update(zip((at for at, _ in batch), scored, strict=True))
        self.token_seconds = (time.monotonic() - began) / tokens
        return True

    def reply(self) -> Reranked:
        """Of what was scored, the part without gaps: what comes after one is not comparable with what it holds."""
        whole = next((at for at in range(len(self.request.texts)) if at not in self.done), len(self.request.texts))
        return Reranked(id=self.request.id, probabilities=[self.done[at] for at in range(whole)])


def _batches(request: Rerank, encoder: CrossEncoder) -> Iterator[list[tuple[int, Pair]]]:
    """Passages of like length together, within a few that follow each other."""
    for first in range(0, len(request.texts), HEAD):
        texts = request.texts[first : first + HEAD]
        pairs = [(first + at, encoder.read(request.query, text)) for at, text in enumerate(texts)]
        batch: list[tuple[int, Pair]] = []
        for at, pair in sorted(pairs, key=lambda one: len(one[1].ids)):
            if batch and (len(batch) + 1) * len(pair.ids) > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append((at, pair))
        yield batch

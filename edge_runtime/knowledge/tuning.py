"""Fits the weights of hybrid search from labelled queries, and says by cross-validation what that is worth. Pure.

Each query is judged once at every weight on a grid; fitting then only looks values up, so two thousand queries take
seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import RequestError
from edge_runtime.knowledge.fusion import combine, refine
from edge_runtime.knowledge.leaning import LEAST, MOST, Traits, Weights
from edge_runtime.knowledge.records import ChunkRow
from edge_runtime.knowledge.search import Candidates
from edge_runtime.knowledge_protocol import LabelledQuery

DEPTH = 10  # of nDCG
STEPS = 21  # weights from 0 to 1
FOLDS = 5
LEAST_QUERIES = 10  # with a trait, for its weight to be fitted
_ROUNDS = 3
_STAY = 0.004  # nDCG that a change of a weight by 1 must bring: without evidence a weight stays as it is
_BASES = tuple(round(0.05 * step, 2) for step in range(1, 20))
_CHANGES = tuple(round(0.05 * step, 2) for step in range(-8, 9))

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A labelled query with what both sides returned for it.

    ``items`` says as what each candidate counts (a document, or itself); ``relevant`` are the items that should be
    found, ``wanted`` how many of them there are.
    """

    traits: Traits
    dense: Mapping[int, float]
    lexical: Mapping[int, float]
    sentences: Mapping[int, float]
    best: float
    items: Mapping[int, int | str]
    relevant: frozenset[int | str]
    wanted: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted weights; nDCG@10 over all queries, of which ``after`` is measured on queries that were not fitted on."""

    weights: Weights
    before: float
    after: float
    lexical: float
    dense: float


def judge(labelled: LabelledQuery, rows: Sequence[ChunkRow], pool: Candidates) -> Judged:
    """Find out which candidates are right; ``rows`` are theirs.

    Raises:
        RequestError: the query names neither documents nor texts.
    """
    items: dict[int, int | str]
    relevant: set[int | str]
    if labelled.documents:
        named = set(labelled.documents)
        items = {row.id: row.document_id for row in rows}
        relevant = {row.document_id for row in rows if row.document in named or row.document_id in named}
        wanted = len(named)
    elif labelled.texts:
        texts = [_plain(text) for text in labelled.texts]
        items = {row.id: row.id for row in rows}
        relevant = {row.id for row in rows if any(text in _plain(row.text) for text in texts)}
        wanted = max(len(relevant), 1)  # how many there are beyond the candidates is not known
    else:
        raise RequestError(
            f'the query "{labelled.query[:80]}" says nothing of what should be found: give documents or texts',
            param="queries",
        )
    return Judged(
        traits=pool.traits,
        dense={key: cosine for key, cosine in pool.dense.items() if key in items},
        lexical={key: score for key, score in pool.lexical.items() if key in items},
        sentences=pool.sentences,
        best=pool.terms.best,
        items=items,
        relevant=frozenset(relevant),
        wanted=wanted,
    )


def fit(judged: Sequence[Judged], start: Weights) -> Fit:
    """The best weights near ``start`` for all of ``judged``, and what to expect of them on other queries.

    nDCG: Järvelin & Kekäläinen 2002, with gains of 0 and 1.
    """
    table = np.array([_at_every_weight(one) for one in judged])
    amounts = np.array([list(one.traits.amounts.values()) for one in judged])
    order = np.random.default_rng(0).permutation(len(judged))
    held = np.empty(len(judged))
    for fold in range(FOLDS):
        out = order[fold::FOLDS]
        rest = np.setdiff1d(order, out)
        held[out] = _values(table[out], amounts[out], _climb(table[rest], amounts[rest], start))
    return Fit(
        weights=_climb(table, amounts, start),
        before=float(_values(table, amounts, start).mean()),
        after=float(held.mean()),
        lexical=float(np.mean([_ndcg(one, combine({}, one.lexical, best=one.best, weight=0.0)) for one in judged])),
        dense=float(np.mean([_ndcg(one, combine(one.dense, {}, best=one.best, weight=1.0)) for one in judged])),
    )


def _climb(table: Array, amounts: Array, start: Weights) -> Weights:
    """Coordinate search: the base, then each trait that enough queries have, until nothing gets better."""
    names = [one.name for one in fields(Weights)]
    counts = dict(zip(names, [len(table), *(amounts > 0.25).sum(axis=0)], strict=True))
    weights, reached = start, _worth(table, amounts, start, start)
    for _ in range(_ROUNDS):
        before = weights
        for name in names:
            if counts[name] < LEAST_QUERIES and name != "base":
                continue
            for value in _BASES if name == "base" else _CHANGES:
                tried = replace(weights, **{name: value})
                worth = _worth(table, amounts, tried, start)
                if worth > reached + 1e-12:
                    weights, reached = tried, worth
        if weights == before:
            break
    return weights


def _worth(table: Array, amounts: Array, weights: Weights, start: Weights) -> float:
    moved = sum(abs(getattr(weights, one.name) - getattr(start, one.name)) for one in fields(Weights))
    return float(_values(table, amounts, weights).mean() - _STAY * moved)


def _values(table: Array, amounts: Array, weights: Weights) -> Array:
    """nDCG of each query under ``weights``: as :func:`edge_runtime.knowledge.leaning.lean`, at the nearest step."""
    changes = np.array([getattr(weights, one.name) for one in fields(Weights)[1:]])
    chosen = np.clip(weights.base + amounts @ changes, LEAST, MOST)
    found: Array = table[np.arange(len(table)), np.rint(chosen * (STEPS - 1)).astype(int)]
    return found


def _at_every_weight(one: Judged) -> list[float]:
    found = []
    for step in range(STEPS):
        weight = step / (STEPS - 1)
        scores = combine(one.dense, one.lexical, best=one.best, weight=weight)
        found.append(_ndcg(one, refine(scores, one.dense, one.sentences, weight=weight)))
    return found


def _ndcg(one: Judged, scores: Mapping[int, float]) -> float:
    ranked = list(dict.fromkeys(one.items[key] for key in scores))[:DEPTH]
    gain = sum(_discount(rank) for rank, item in enumerate(ranked) if item in one.relevant)
    return float(gain / sum(_discount(rank) for rank in range(min(one.wanted, DEPTH))))


def _discount(rank: int) -> float:
    return 1.0 / math.log2(rank + 2)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()

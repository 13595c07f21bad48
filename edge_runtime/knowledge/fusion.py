"""Joins the dense and the lexical ranking: a convex combination of scores with fixed floors, or by ranks. Pure.

Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2023): the convex combination beats
reciprocal rank fusion in and out of domain, with one weight that few labels settle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

DENSE_WEIGHT = 0.6  # fitted with SENTENCE_SHARE on docstrings and package descriptions
SENTENCE_SHARE = 0.4  # of the dense score: the best sentence, beside the passage as a whole
HEAD = 30  # candidates, from the best one, whose sentences are looked at
COSINE_FLOOR = 0.0  # unrelated texts have a cosine near 0 with this embedder
RANK_OFFSET = 60  # Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet" (2009)
_K1 = 1.2  # FTS5's bm25 is fixed at k1 = 1.2 and b = 0.75


def combine(
    dense: Mapping[int, float], lexical: Mapping[int, float], *, best: float, weight: float = DENSE_WEIGHT
) -> dict[int, float]:
    """Score in [0, 1] of every candidate of either kind: chunk id -> score, best first.

    ``dense`` holds cosines, ``lexical`` BM25 scores (larger is better), ``best`` the score that no text can pass. A
    candidate that one side did not return gets that side's lowest cosine, or no lexical score.
    """
    lowest = min(dense.values(), default=COSINE_FLOOR)
    scores = {
        key: weight * _floored(dense.get(key, lowest)) + (1 - weight) * share(lexical.get(key, 0.0), best)
        for key in {**dense, **lexical}
    }
    return _sorted(scores)


def refine(
    scores: Mapping[int, float], dense: Mapping[int, float], sentences: Mapping[int, float], *, weight: float
) -> dict[int, float]:
    """``scores`` of :func:`combine` with the first ``HEAD`` judged by their best sentences too, sorted anew.

    ``dense`` holds the cosines that were used, ``sentences`` the best one over each chunk's sentences; a chunk without
    sentences stays as it is. What comes after the first ``HEAD`` stays behind them.
    """
    head = list(scores)[:HEAD]
    judged = {
        key: scores[key] + weight * SENTENCE_SHARE * (_floored(sentences[key]) - _floored(dense[key]))
        if key in sentences and key in dense
        else scores[key]
        for key in head
    }
    least = min(judged.values(), default=0.0)
    return {**_sorted(judged), **{key: min(scores[key], least) for key in list(scores)[HEAD:]}}


def reciprocal(*rankings: Mapping[int, float]) -> dict[int, float]:
    """Reciprocal rank fusion of rankings that are sorted, best first: key -> score in [0, 1], best first.

    1 stands for the first place everywhere.
    """
    scores: dict[int, float] = {}
    most = len(rankings) / (RANK_OFFSET + 1)
    for ranking in rankings:
        for rank, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_OFFSET + rank) / most
    return _sorted(scores)


def share(score: float, best: float) -> float:
    """A BM25 score as a share of the best possible, in [0, 1]."""
    return min(max(score / best, 0.0), 1.0) if best > 0 else 0.0


def best_bm25(total: int, counts: Sequence[int]) -> float:
    """The score that BM25 approaches for a text full of every query term.

    ``total`` chunks, ``counts[i]`` of them with term i (0 for a term that no chunk holds: it counts, being asked for).
    """
    return sum((_K1 + 1) * _idf(total, count) for count in counts)


def _idf(total: int, count: int) -> float:
    # As in fts5_aux.c, which keeps a term that most rows hold just above zero.
    return max(math.log((total - count + 0.5) / (count + 0.5)), 1e-6)


def _floored(cosine: float) -> float:
    return min(max((cosine - COSINE_FLOOR) / (1 - COSINE_FLOOR), 0.0), 1.0)


def _sorted(scores: Mapping[int, float]) -> dict[int, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))

"""Finds chunks of one collection by meaning (vectors), by words (BM25), or by both; does not answer anything."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import PermissionDeniedError
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.fusion import DENSE_WEIGHT, best_bm25, combine, share
from edge_runtime.knowledge.index import MAX_NEAREST, Index
from edge_runtime.knowledge.records import Matrix
from edge_runtime.knowledge_protocol import SearchMode

MAX_TERMS = 32
_CANDIDATES = 50  # of each kind, at least
_WINDOWS_PER_CHUNK = 3  # 600 tokens in windows of 254
_WORD = re.compile(r"\w+", re.UNICODE)

# Function words; what is asked of a manual ("off", "over", "under", "not", "after") stays.
_FUNCTION_WORDS = """
a about am an and any are as at be been being but by can could did do does doing for from had has have having he her
hers him his how i if in into is it its itself me my of on or our ours s she should so some such t than that the their
theirs them then there these they this those to us was we were what when where which who whom whose why will with
would you your yours tell please
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk and why it was found."""

    chunk: int
    document_id: str
    document: str  # its name
    start: int
    end: int
    heading: tuple[str, ...]
    page: int | None
    text: str
    score: float  # what the list is sorted by, in [0, 1]
    dense: float | None  # cosine; None: no vector was given
    lexical: float  # BM25 as a share of the best possible, in [0, 1]


@dataclass(frozen=True, slots=True)
class Terms:
    """A question's words for the full-text index: an FTS5 expression ("" for none) and the score no text can pass."""

    expression: str
    best: float
    known: float  # share of the words' weight that the index holds at all


def search(
    index: Index,
    text: str,
    vector: Matrix | None,
    *,
    collection: str,
    mode: SearchMode = "hybrid",
    k: int = 5,
    readers: Reader | None = None,
    weight: float = DENSE_WEIGHT,
) -> list[Found]:
    """The ``k`` best chunks of ``collection`` for ``text``, best first; nothing of another collection, ever.

    ``vector`` (width,) is the unit vector of ``text``; without one, or in mode ``lexical``, words alone decide.
    ``readers`` is who asks; None stands for the box's owner.

    Raises:
        PermissionDeniedError: the collection names its readers, and the one who asks is not among them.
        StorageError: the index cannot be read.
    """
    found = index.collection(collection)
    if found is None:
        return []
    if readers is not None and not found.readable(readers):
        raise PermissionDeniedError(
            f"this user may not read the collection {collection}: ask the box's owner for access"
        )
    query = terms(index, text)
    dense, lexical = _candidates(index, query, vector, collection=collection, mode=mode, wanted=max(_CANDIDATES, 4 * k))
    match mode:
        case "dense":
            scores = {key: min(max(cosine, 0.0), 1.0) for key, cosine in dense.items()}
        case "lexical":
            scores = {key: share(score, query.best) for key, score in lexical.items()}
        case "hybrid":
            scores = combine(dense, lexical, best=query.best, weight=weight if vector is not None else 0.0)
    top = list(scores)[:k]
    if vector is not None:
        dense.update(index.cosines([key for key in top if key not in dense], np.asarray(vector, np.float32)))
    return [
        Found(
            row.id,
            row.document_id,
            row.document,
            row.start,
            row.end,
            row.heading,
            row.page,
            row.text,
            scores[row.id],
            dense.get(row.id),
            share(lexical.get(row.id, 0.0), query.best),
        )
        for row in index.chunks(top)
    ]


def _candidates(
    index: Index, query: Terms, vector: Matrix | None, *, collection: str, mode: SearchMode, wanted: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Cosines and BM25 scores, by chunk id, of at least ``wanted`` chunks of each kind that ``mode`` asks for."""
    dense: dict[int, float] = {}
    if vector is not None and mode != "lexical":
        dense = index.nearest(collection, vector, min(wanted * _WINDOWS_PER_CHUNK, MAX_NEAREST))
    lexical: dict[int, float] = {}
    if query.expression and mode != "dense":
        lexical = index.matching(collection, query.expression, wanted)
    return dense, lexical


def terms(index: Index, text: str) -> Terms:
    """Every word quoted and joined by OR, so that no character of a question is ever syntax; stop words go, unless
    nothing else is left."""
    words = list(dict.fromkeys(word.casefold() for word in _WORD.findall(text)))
    kept = [word for word in words if word not in STOP_WORDS] or words
    stems = {word: index.stems(word) for word in kept[: 4 * MAX_TERMS]}
    kept = [word for word in kept if stems.get(word)][:MAX_TERMS]
    if not kept:
        return Terms("", 0.0, 0.0)
    # A word may be several terms ("e17" is one, "n_3" two): FTS5 then looks for the phrase; its rarest part weighs it.
    total, counts = index.rarity(sorted({stem for word in kept for stem in stems[word]}))
    rows = [min(counts.get(stem, 0) for stem in stems[word]) for word in kept]
    best = best_bm25(total, rows)
    present = best_bm25(total, [count for count in rows if count])
    absent = best - present
    expression = " OR ".join(f'"{word}"' for word in kept)
    return Terms(expression, best, 1.0 - absent / best if best > 0 else 0.0)

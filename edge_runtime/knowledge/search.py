"""Finds chunks of one collection by meaning (vectors), by words (BM25), or by both; does not answer anything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from edge_runtime.errors import PermissionDeniedError
from edge_runtime.knowledge import terms
from edge_runtime.knowledge.closest import closest
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.filters import Scope
from edge_runtime.knowledge.fusion import HEAD, combine, reciprocal, refine, share
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.leaning import RARE_SHARE, Leaning, Traits, Weights, lean, prefix
from edge_runtime.knowledge.records import Matrix
from edge_runtime.knowledge.terms import ENOUGH, Expression, Terms
from edge_runtime.knowledge.wording import Wording, dissect
from edge_runtime.knowledge_protocol import Filter, Fusion, SearchMode

CANDIDATES = 100  # passages of each kind, at least, or their windows
NOWHERE = Leaning(0.0, "There is no such collection.")


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
    bm25: float | None = None  # None: words did not find it
    dense_rank: int | None = None  # from 1; None: that side did not return it
    lexical_rank: int | None = None
    sentence: float | None = None  # cosine of its best sentence; None: not looked at
    rerank: float | None = None  # the cross-encoder's probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is searched, and how. ``weight`` None: it follows the query. ``readers`` None: the box's owner asks."""

    collection: str
    mode: SearchMode = "hybrid"
    k: int = 5
    readers: Reader | None = None
    filter: Filter | None = None
    fusion: Fusion = "convex"
    weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What both sides returned for one query, by chunk id and best first, and what is known of the query itself."""

    dense: dict[int, float]  # cosines
    lexical: dict[int, float]  # BM25, larger is better
    returned: dict[int, int]  # the places of those that the dense side returned, from 1
    sentences: dict[int, float] = field(default_factory=dict)  # cosines of the best sentences, of those looked at
    expression: str  # what FTS5 was given last
    terms: Terms
    traits: Traits
    wording: Wording


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The hits, best first, and how they came about."""

    found: list[Found] = field(default_factory=list)
    expression: str = ""
    leaning: Leaning = NOWHERE
    dropped: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)


def search(
    index: Index,
    text: str,
    vector: Matrix | None,
    *,
    collection: str,
    mode: SearchMode = "hybrid",
    k: int = 5,
    readers: Reader | None = None,
    filter: Filter | None = None,  # noqa: A002 - the wire's name for it
    fusion: Fusion = "convex",
    weight: float | None = None,
) -> list[Found]:
    """The hits of :func:`rank` alone, with its errors."""
    wanted = Wanted(collection=collection, mode=mode, k=k, readers=readers, filter=filter, fusion=fusion, weight=weight)
    return rank(index, text, vector, wanted).found


def rank(index: Index, text: str, vector: Matrix | None, wanted: Wanted) -> Ranking:
    """The best chunks of one collection for ``text``, best first; nothing of another collection, ever.

    ``vector`` (width,) is the unit vector of ``text``; without one, or in mode ``lexical``, words alone decide.

    Raises:
        PermissionDeniedError: the collection names its readers, and the one who asks is not among them.
        StorageError: the index cannot be read.
    """
    unit = None if vector is None else np.asarray(vector, np.float32)
    with index.snapshot():
        return _rank(index, text, unit, wanted)


def _rank(index: Index, text: str, vector: Matrix | None, wanted: Wanted) -> Ranking:
    watch = _Watch()
    pool = _collect(index, text, vector, wanted, watch)
    if pool is _NOTHING:
        return Ranking()
    leaning = _leaning(index, pool, wanted, dense=vector is not None)
    with watch.lap("fuse"):
        scores = _fuse(pool, leaning.weight, wanted)
        if vector is not None and wanted.mode == "hybrid" and wanted.fusion == "convex":
            pool = _complete(index, pool, list(scores)[:HEAD], vector)
            scores = refine(_fuse(pool, leaning.weight, wanted), pool.dense, pool.sentences, weight=leaning.weight)
        top = list(scores)[: wanted.k]
        if vector is not None:
            pool = _complete(index, pool, top, vector, sentences=False)
    with watch.lap("rows"):
        found = _rows(index, top, scores, pool)
    return Ranking(
        found=found,
        expression=pool.expression,
        leaning=leaning,
        dropped=_dropped(pool),
        timings_ms=watch.laps,
    )


def collect(index: Index, text: str, vector: Matrix | None, wanted: Wanted) -> Candidates:
    """What both sides return for ``text``, with the sentences of the best; errors as of :func:`rank`."""
    with index.snapshot():
        pool = _collect(index, text, vector, wanted, _Watch())
        if vector is None or pool is _NOTHING:
            return pool
        # Whatever the weight: the best of either side.
        best = dict.fromkeys([*list(pool.dense)[:HEAD], *list(pool.lexical)[:HEAD]])
        return _complete(index, pool, list(best), vector)


def _collect(index: Index, text: str, vector: Matrix | None, asked: Wanted, watch: _Watch) -> Candidates:
    """At least ``CANDIDATES`` chunks of each kind that the mode asks for, where there are as many."""
    scope = _scope(index, asked)
    if scope is None:
        return _NOTHING
    count = max(CANDIDATES, 4 * asked.k)
    with watch.lap("terms"):
        wording = dissect(text)
        query = _terms(index, wording)
    dense: dict[int, float] = {}
    if vector is not None and asked.mode != "lexical":
        with watch.lap("scan"):
            dense = index.nearest(scope, vector, count)
    lexical: dict[int, float] = {}
    used = Expression("")
    if asked.mode != "dense":
        with watch.lap("words"):
            for used in query.expressions:
                lexical = index.matching(scope, used.text, count)
                if len(lexical) >= ENOUGH:
                    break
    return Candidates(
        dense=dense,
        returned={key: place for place, key in enumerate(dense, 1)},
        lexical={key: score / used.copies for key, score in lexical.items()},
        expression=used.text,
        terms=query,
        traits=_traits(wording, query),
        wording=wording,
    )


def _complete(
    index: Index, pool: Candidates, chunks: Sequence[int], vector: Matrix, *, sentences: bool = True
) -> Candidates:
    """``pool`` with the exact cosines of ``chunks`` that words alone found, and those of their best sentences."""
    missing = index.cosines([key for key in chunks if key not in pool.dense], vector)
    if not sentences:
        return replace(pool, dense={**pool.dense, **missing})
    with index.database.reading() as connection:
        return replace(pool, dense={**pool.dense, **missing}, sentences=closest(connection, chunks, vector))


def weights(index: Index, collection: str) -> Weights:
    """Those that were fitted for the collection, or the defaults."""
    return Weights.of(index.settings(prefix(collection)), collection)


def _scope(index: Index, wanted: Wanted) -> Scope | None:
    found = index.collection(wanted.collection)
    if found is None:
        return None
    if wanted.readers is not None and not found.readable(wanted.readers):
        raise PermissionDeniedError(
            f"this user may not read the collection {wanted.collection}: ask the box's owner for access"
        )
    return index.scope(wanted.collection, wanted.filter)


def _terms(index: Index, wording: Wording) -> Terms:
    stems = {term.text: index.stems(term.text) for term in wording.terms}
    total, chunks = index.rarity(sorted({stem for found in stems.values() for stem in found}))
    return terms.plan(terms.counted(wording.terms, stems, chunks), total)


def _traits(wording: Wording, query: Terms) -> Traits:
    rare = [
        row.term.text
        for row in query.counted
        if row.term.kind == "word" and not row.term.of and 0 < row.chunks <= RARE_SHARE * query.total
    ]
    return Traits(
        codes=wording.codes,
        quoted=wording.quoted,
        rare=tuple(rare),
        terms=sum(1 for term in wording.terms if not term.of),
        question=wording.question,
        known=query.known,
    )


def _leaning(index: Index, pool: Candidates, wanted: Wanted, *, dense: bool) -> Leaning:
    if wanted.mode == "lexical" or not dense:
        return Leaning(0.0, "Words alone decide: " + ("as asked." if dense else "there is no vector."))
    if wanted.mode == "dense":
        return Leaning(1.0, "Meaning alone decides: as asked.")
    if wanted.fusion == "rrf":
        return Leaning(0.5, "The ranks of both sides count alike: reciprocal rank fusion has no weight.")
    if wanted.weight is not None:
        return Leaning(wanted.weight, "The weight is the one that was asked for.")
    return lean(pool.traits, weights(index, wanted.collection))


def _fuse(pool: Candidates, weight: float, wanted: Wanted) -> dict[int, float]:
    """Score in [0, 1] by chunk id, best first."""
    match wanted.mode:
        case "dense":
            return {key: min(max(cosine, 0.0), 1.0) for key, cosine in pool.dense.items()}
        case "lexical":
            return {key: share(score, pool.terms.best) for key, score in pool.lexical.items()}
        case "hybrid" if wanted.fusion == "rrf":
            return reciprocal(pool.dense, pool.lexical)
        case "hybrid":
            return combine(pool.dense, pool.lexical, best=pool.terms.best, weight=weight)


def _rows(index: Index, top: Sequence[int], scores: Mapping[int, float], pool: Candidates) -> list[Found]:
    lexical_ranks = {key: rank for rank, key in enumerate(pool.lexical, 1)}
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
            pool.dense.get(row.id),
            share(pool.lexical.get(row.id, 0.0), pool.terms.best),
            bm25=pool.lexical.get(row.id),
            dense_rank=pool.returned.get(row.id),
            lexical_rank=lexical_ranks.get(row.id),
            sentence=pool.sentences.get(row.id),
        )
        for row in index.chunks(top)
    ]


def _dropped(pool: Candidates) -> tuple[str, ...]:
    unread = (f"and {pool.wording.unread} more words",) if pool.wording.unread else ()
    return (*pool.wording.stopped, *pool.terms.dropped, *unread)


_NOTHING = Candidates(
    dense={}, returned={}, lexical={}, expression="", terms=terms.plan((), 0), traits=Traits(), wording=dissect("")
)


class _Watch:
    """Milliseconds of each part of a search."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.laps[name] = round(1e3 * (time.perf_counter() - began), 3)

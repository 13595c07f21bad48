"""From a query's words to an FTS5 expression of bounded cost: the rare words choose the rows, the others weigh them.

FTS5 pays about a microsecond for every row that it scores, and a little for every entry of each term's list. So rows
are chosen by the rarest terms alone, and common ones are counted only in those rows. Pure: the counts are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.knowledge.fusion import best_bm25
from edge_runtime.knowledge.wording import Term

MAX_TERMS = 16
ROWS = 3_000  # chunks that are scored for one query, at most, where its words are not all more common than that
WALKED = 60_000  # entries of terms' lists that are read for one query, at most; the rarest term is read in any case
ENOUGH = 20  # hits below which a narrow expression is followed by a wider one


@dataclass(frozen=True, slots=True)
class Counted:
    """A term with the terms of the index that it consists of, and how many chunks hold the rarest of these."""

    term: Term
    stems: tuple[str, ...]
    chunks: int
    entries: int = 0  # of all their lists together: what reading them costs


@dataclass(frozen=True, slots=True)
class Expression:
    """What FTS5 is given; it then counts every term ``copies`` times."""

    text: str
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """A query for the full-text index: each expression is wider than the one before it, none: nothing to look for."""

    expressions: tuple[Expression, ...]
    best: float  # the score that no text can pass
    known: float  # share of the words' weight that the index holds at all
    dropped: tuple[str, ...]  # words that are not searched for: too common, or too many
    total: int  # chunks in the index
    counted: tuple[Counted, ...]  # the rarest first


def counted(terms: Sequence[Term], stems: Mapping[str, Sequence[str]], chunks: Mapping[str, int]) -> list[Counted]:
    """Terms with their counts, the rarest first; of terms that are one to the index, the first stays."""
    found: dict[tuple[str, ...], Counted] = {}
    for term in terms:
        parts = tuple(stems.get(term.text, ()))
        if parts and parts not in found:
            # A word may be several terms ("n_3" is two): FTS5 then looks for the phrase, which is in no more chunks
            # than its rarest part.
            held = [chunks.get(part, 0) for part in parts]
            found[parts] = Counted(term, parts, min(held), sum(held))
    return sorted(found.values(), key=lambda one: one.chunks)


def plan(rows: Sequence[Counted], total: int, *, most_rows: int = ROWS, most_walked: int = WALKED) -> Terms:
    """Choose from ``rows`` (the rarest first) what is searched for; ``total`` is the number of chunks.

    Every term is quoted and holds letters, digits and underscores alone: no character of a query is ever syntax.
    """
    kept, rest, dropped = _choose(rows, most_rows, most_walked)
    if not kept:
        return Terms((), 0.0, 0.0, (), total, ())
    if kept[0].chunks > most_rows and rest:
        expressions = _narrow([*kept, *rest], total, most_rows)
    else:
        expressions = (_gated(kept, rest),)
    asked = _best(rows, total)
    return Terms(
        expressions,
        best=_best([*kept, *rest], total),
        known=_best([row for row in rows if row.chunks], total) / asked if asked > 0 else 0.0,
        dropped=tuple(row.term.text for row in dropped),
        total=total,
        counted=tuple(rows),
    )


def _choose(
    rows: Sequence[Counted], most_rows: int, most_walked: int
) -> tuple[list[Counted], list[Counted], list[Counted]]:
    """Terms that choose the rows, terms that are counted in them, and terms that are left out."""
    kept: list[Counted] = []
    rest: list[Counted] = []
    dropped: list[Counted] = []
    scored = walked = 0
    for row in rows:
        walked += 2 * max(row.entries, row.chunks)
        if len(kept) + len(rest) == MAX_TERMS:
            dropped.append(row)
        elif not kept or (not rest and scored + row.chunks <= most_rows and walked <= most_walked):
            kept.append(row)
            scored += row.chunks
        elif walked <= most_walked:
            rest.append(row)
        else:
            dropped.append(row)
    return kept, rest, dropped


def _gated(kept: Sequence[Counted], rest: Sequence[Counted]) -> Expression:
    """Rows that hold one of ``kept``, with ``rest`` counted where it is there too."""
    if not rest:
        return Expression(_any(kept))
    # The gate stands on both sides: a row that passes it matches the other side as well, so that no term of `rest` is
    # needed. It counts twice then, and to keep the proportions so does the rest.
    return Expression(f"({_any(kept)}) AND ({_any([*kept, *rest, *rest])})", copies=2)


def _narrow(rows: Sequence[Counted], total: int, most: int) -> tuple[Expression, ...]:
    """Every term is common: rows that hold the two or three rarest of them, and then such as hold the rarest."""
    gate = 2
    while gate < min(len(rows), 3) and _expected(rows[:gate], total) > most:
        gate += 1
    return tuple(_all(rows[:needed], rows[needed:]) for needed in range(gate, 0, -1))


def _all(needed: Sequence[Counted], others: Sequence[Counted]) -> Expression:
    gate = " AND ".join(_quoted(row) for row in needed)
    if not others:
        return Expression(gate)
    return Expression(f"{gate} AND ({_any([*needed, *others, *others])})", copies=2)


def _expected(rows: Sequence[Counted], total: int) -> float:
    """Chunks that hold all of ``rows``, were they independent; words of one query are not, by about this much."""
    return 2 * total * math.prod(row.chunks / max(total, 1) for row in rows)


def _any(rows: Sequence[Counted]) -> str:
    return " OR ".join(_quoted(row) for row in rows)


def _quoted(row: Counted) -> str:
    return f'"{row.term.text}"'


def _best(rows: Sequence[Counted], total: int) -> float:
    return best_bm25(total, [row.chunks for row in rows])

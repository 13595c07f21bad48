"""Passages by hand: sentences that follow each other, with unit vectors that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.knowledge.evidence import Evidence, Passage, Quote, Unit
from edge_runtime.knowledge.records import Matrix

WIDTH = 8


def direction(*values: float) -> Matrix:
    vector = np.zeros(WIDTH, np.float32)
    vector[: len(values)] = values
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


QUESTION = direction(1.0)
NEAR = direction(1.0, 0.8)
FAR = direction(0.1, 1.0, 1.0)


def passage(
    *sentences: str,
    vectors: Sequence[Matrix] = (),
    name: str = "manual.md",
    start: int = 0,
    items: bool = False,
    under: str = "",
    heading: str | None = None,
    dense: float = 0.6,
) -> Passage:
    """One chunk of these sentences, each on a line of its own; NEAR the question where no vectors are given."""
    units, at = [], start
    for sentence in sentences:
        units.append(Unit(at, at + len(sentence), sentence, items, under))
        at += len(sentence) + 1
    return Passage(
        document_id=name,
        document=name,
        heading=heading,
        page=None,
        start=start,
        text="\n".join(sentences),
        units=tuple(units),
        vectors=np.stack(list(vectors) or [NEAR] * len(sentences)),
        dense=dense,
        lexical=0.5,
        titles=heading or "",
    )


def quote(found: Passage, core: int = 0, *, score: float = 1.0) -> Quote:
    return Quote(passage=found, core=core, first=core, last=core, score=score, cosine=0.6)


def evidence(*quotes: Quote, confidence: float = 0.9) -> Evidence:
    return Evidence(quotes, confidence, {})

"""When a cross-encoder is asked, and what its probabilities make of a ranking. Pure: the model is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.knowledge.search import Found

READ = 24  # hits, from the best one, that it reads
CLEAR = 0.15  # a lead of the first hit over the second, beyond which nothing is asked


def contested(found: Sequence[Found]) -> Sequence[Found]:
    """The hits that a cross-encoder should read; none where the first one leads clearly, or there is no second."""
    if len(found) < 2 or found[0].score - found[1].score >= CLEAR:
        return ()
    return found[:READ]


def passage(found: Found) -> str:
    """What it reads of a hit: the headings, which say what the text is about, and the text."""
    return "\n".join([*found.heading, found.text])


def reorder(found: Sequence[Found], probabilities: Sequence[float]) -> list[Found]:
    """``found`` with its first ``len(probabilities)`` hits sorted by these, which are their scores then.

    A hit that was not read stays behind those that were, and has no higher score than the last of them.
    """
    judged = sorted(
        (
            replace(one, score=probability, rerank=probability)
            for one, probability in zip(found, probabilities, strict=False)
        ),
        key=lambda one: -one.score,
    )
    if not judged:
        return list(found)
    least = judged[-1].score
    return [*judged, *(replace(one, score=min(one.score, least)) for one in found[len(judged) :])]

"""Is hybrid search better than its halves, and how good and fast are answers from quotes? Measured by ``edge eval``.

Nothing is fitted here: the box searches with the weights that it ships with.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from benchmarks import questions
from benchmarks.box import Box
from benchmarks.knowledge_stage import Stand, embedder
from benchmarks.stage import Outcome, Row
from edge_runtime.cli.eval import Round
from edge_runtime.cli.progress import bars
from edge_runtime.evaluation import CUT, Labelled, interval, ndcg_at, score_answers, score_search
from edge_runtime.knowledge.cutting import Cutter
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.ingest import Arrival, Intake
from edge_runtime.knowledge_protocol import SearchMode
from edge_runtime.protocol import DEFAULT_COLLECTION

MARGIN = 0.02  # nDCG@10 of hybrid above the better of its halves
ANSWER_BAR = 50.0  # ms, p50
_MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")


def squad(stand: Stand) -> Outcome:
    """SQuAD's questions to the paragraph that each was asked of, every paragraph a document."""
    documents, asked = stand.squad
    with stand.box() as box:
        box.add(documents)
        return _compare(box, "questions to SQuAD paragraphs", [one for one in asked if one.is_ranked])


def pages(stand: Stand) -> Outcome:
    """What a man page says of itself in NAME, to the page without that section."""
    asked = [Labelled(question=description, documents=[name]) for name, description, _ in stand.pages]

    def fill(index: Index) -> None:
        asyncio.run(_add(stand, index))

    with stand.box("pages", fill) as box:
        return _compare(box, f"descriptions to {len(asked)} man pages", asked)


async def _add(stand: Stand, index: Index) -> None:
    kept = embedder(stand)
    cutter = Cutter(kept.tokenizer)
    intake = Intake(index, kept, Limits(), read=cutter.cut)
    try:
        for name, _, text in stand.pages:
            await intake.add(Arrival(name=name, content=text.encode(), collection=DEFAULT_COLLECTION))
    finally:
        cutter.close()
        kept.close()


def _compare(box: Box, name: str, asked: list[Labelled]) -> Outcome:
    with box.client() as client, bars("questions") as shown:
        told = Round(client, DEFAULT_COLLECTION, CUT, shown)
        found = {mode: told.search(asked, mode) for mode in _MODES}
    each = {mode: [ndcg_at(*ranking) for ranking in one.rankings] for mode, one in found.items()}
    means = {mode: sum(values) / len(values) for mode, values in each.items()}
    better: SearchMode = "dense" if means["dense"] > means["lexical"] else "lexical"
    gain = means["hybrid"] - means[better]
    low, high = interval([both - one for both, one in zip(each["hybrid"], each[better], strict=True)])
    row = Row.least(
        f"nDCG@{CUT} of hybrid above {better}, {name}",
        gain,
        MARGIN,
        f" (95 % {low:+.3f} to {high:+.3f}; " + ", ".join(f"{mode} {mean:.3f}" for mode, mean in means.items()) + ")",
    )
    scores = {mode: dataclasses.asdict(score_search(one.rankings, one.seconds, CUT)) for mode, one in found.items()}
    figures: dict[str, Any] = {"questions": len(asked), "gain": gain, "interval": [low, high], "modes": scores}
    recalls = ", ".join(f"{mode} {one['recall']['value']:.3f}" for mode, one in scores.items())
    return Outcome([row, Row.stated(f"  recall@{CUT}", recalls)], figures)


def answers(stand: Stand) -> Outcome:
    """Answers from quotes alone, each question once, on a warm box: SQuAD's where it is there, else the samples'."""
    try:
        documents, asked = stand.squad
        name = "SQuAD"
    except RuntimeError:
        documents, of_samples = questions.samples()
        asked = [
            Labelled(question=one.text, answers=list(one.golds), answerable=one.is_answerable) for one in of_samples
        ]
        name = "samples"
    with stand.box() as box, box.client() as client, bars("questions") as shown:
        box.add(documents)
        for number in range(5):
            client.ask(f"How often is part {number} inspected?", mode="extract")
        judged = Round(client, DEFAULT_COLLECTION, CUT, shown).ask(asked[:100] if stand.quick else asked, "extract")
    scores = score_answers(judged)
    told = {
        "grounded": scores.grounded,
        "right": scores.right,
        "declined rightly": scores.declined_rightly,
        "declined wrongly": scores.declined_wrongly,
        "verbatim": scores.verbatim,
    }
    shares = ", ".join(f"{what} {one.value:.3f}" for what, one in told.items() if one.value is not None)
    rows = [
        Row.most(f"answer from quotes, {name}, p50", scores.p50_ms, ANSWER_BAR, " ms", f" (p95 {scores.p95_ms:.1f})"),
        Row.stated(f"  shares of {len(judged)} questions", shares),
    ]
    return Outcome(rows, dataclasses.asdict(scores))

"""How good are the quotes, and does the box know when to decline? SQuAD 2.0, its paragraphs the documents.

Every question is asked in the mode that quotes only, with nothing declined: the first quote is right where it holds a
gold answer within 300 characters, and ``confidence`` is judged by how well it tells answerable questions from others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import figures, questions
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.machine import describe
from edge_runtime.config import KnowledgeConfig

QUOTE_CHARACTERS = 300
RIGHT_BAR = 0.70
AREA_BAR = 0.60


@dataclass(frozen=True, slots=True)
class Asked:
    question: questions.Question
    confidence: float
    quote: str
    seconds: float

    @property
    def is_right(self) -> bool:
        return len(self.quote) <= QUOTE_CHARACTERS and self.question.is_held_by(self.quote)


def ask_all(box: Box, asked: list[questions.Question]) -> list[Asked]:
    """Each question once, one after the other."""
    found = []
    with box.client() as client:
        for question in asked:
            started = time.perf_counter()
            answer = client.ask(question.text, mode="extract")
            seconds = time.perf_counter() - started
            quote = answer.citations[0].quote if answer.citations else ""
            found.append(Asked(question, answer.confidence, quote, seconds))
    return found


def curve(found: list[Asked]) -> list[dict[str, float]]:
    """What is answered, and how often rightly, where answers below a confidence are declined."""
    rows = []
    for threshold in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        kept = [item for item in found if item.confidence >= threshold]
        answerable = [item for item in found if item.question.is_answerable]
        declined = [item for item in found if item.confidence < threshold]
        rows.append(
            {
                "threshold": threshold,
                "answered": round(len(kept) / len(found), 3),
                "right_of_answered": round(sum(item.is_right for item in kept) / len(kept), 3) if kept else 1.0,
                "answerable_still_right": round(
                    sum(item.is_right for item in answerable if item.confidence >= threshold) / len(answerable), 3
                ),
                "unanswerable_declined": round(
                    sum(not item.question.is_answerable for item in declined) / (len(found) - len(answerable)), 3
                ),
            }
        )
    return rows


def judge(found: list[Asked]) -> dict[str, Any]:
    """Both bars, with their intervals, and the curve."""
    answerable = [item for item in found if item.question.is_answerable]
    right = sum(item.is_right for item in answerable)
    scores = np.array([item.confidence for item in found])
    truths = np.array([item.question.is_answerable for item in found])
    paragraphs = [item.question.document for item in found]
    rightness = np.array([item.is_right for item in found])
    return {
        "questions": len(found),
        "answerable": len(answerable),
        "first_quote_right": round(right / len(answerable), 4),
        "first_quote_right_interval": figures.share_interval(right, len(answerable)),
        "first_quote_right_bar": RIGHT_BAR,
        "answerable_area": round(figures.area(scores[truths], scores[~truths]), 4),
        "answerable_area_interval": figures.area_interval(scores, truths, paragraphs),
        "answerable_area_bar": AREA_BAR,
        "right_area": round(figures.area(scores[rightness], scores[~rightness]), 4),
        "longest_quote": max(len(item.quote) for item in found),
        "without_quote": sum(not item.quote for item in found),
        "default_threshold": KnowledgeConfig().confidence,
        "curve": curve(found),
        "latency": figures.spread([item.seconds for item in found]),
    }


def show(result: dict[str, Any]) -> None:
    print("threshold  answered  right of answered  answerable, right  unanswerable, declined", file=sys.stderr)
    for row in result["curve"]:
        print(
            f"{row['threshold']:9.2f} {row['answered']:9.3f} {row['right_of_answered']:18.3f} "
            f"{row['answerable_still_right']:18.3f} {row['unanswerable_declined']:23.3f}",
            file=sys.stderr,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="a SQuAD 2.0 file")
    arguments.add_argument("--writer", default=SMALL_WRITER)
    arguments.add_argument("--misses", type=int, default=0, help="print so many wrong first quotes")
    given = arguments.parse_args()
    documents, asked = questions.squad(given.data)
    with Box(given.writer, settings="[knowledge]\nconfidence = 0.0") as box:
        indexing_s = box.add(documents)
        found = ask_all(box, asked)
    result = judge(found)
    show(result)
    for item in [item for item in found if item.question.is_answerable and not item.is_right][: given.misses]:
        print(f"\n{item.question.text}\n  gold: {item.question.golds}\n  quote: {item.quote}", file=sys.stderr)
    print(
        json.dumps({"machine": describe(), "documents": len(documents), "indexing_s": round(indexing_s, 2), **result})
    )


if __name__ == "__main__":
    main()

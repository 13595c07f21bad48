"""Are questions wholly off the subject declined? CLINC150's everyday questions against manuals and the Normans."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from benchmarks import figures, questions
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.machine import describe

DECLINED_BAR = 0.95


def ask_all(box: Box, asked: list[str], shown: int) -> dict[str, Any]:
    """The share declined, and the most confident of what was not."""
    answered = []
    with box.client() as client:
        for text in asked:
            answer = client.ask(text, mode="extract")
            if answer.grounded:
                answered.append((answer.confidence, text, answer.citations[0].quote if answer.citations else ""))
    for confidence, text, quote in sorted(answered, reverse=True)[:shown]:
        print(f"{confidence:.2f}  {text}\n      {quote}", file=sys.stderr)
    declined = len(asked) - len(answered)
    return {
        "asked": len(asked),
        "declined": round(declined / len(asked), 4),
        "interval": figures.share_interval(declined, len(asked)),
        "bar": DECLINED_BAR,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="clinc150_small.json")
    arguments.add_argument("--squad", type=Path, required=True, help="a SQuAD 2.0 file, for its paragraphs")
    arguments.add_argument("--sample", type=int, default=1000, help="so many of the questions within its intents")
    arguments.add_argument("--shown", type=int, default=10, help="print so many that were answered")
    arguments.add_argument("--writer", default=SMALL_WRITER)
    given = arguments.parse_args()
    outside, inside = questions.clinc(given.data)
    paragraphs, _ = questions.squad(given.squad)
    manuals, _ = questions.samples()
    with Box(given.writer) as box:
        box.add({**paragraphs, **manuals})
        result = {
            "machine": describe(),
            "documents": len(paragraphs) + len(manuals),
            "out_of_scope": ask_all(box, outside, given.shown),
            "in_scope": ask_all(box, random.Random(0).sample(inside, given.sample), given.shown),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

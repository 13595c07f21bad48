"""How long until an answer? From quotes alone, and until the first verified sentence of a phrased one.

Times are a client's: from before the connection to after the reply, one question at a time on a warm daemon. It also
says how many of the sample questions were answered rightly or declined rightly, since a fast wrong answer is none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import figures, questions
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.machine import describe
from edge_runtime.client import SyncClient
from edge_runtime.config import ModelsConfig
from edge_runtime.knowledge_protocol import Answer, Sentence
from edge_runtime.paths import Paths
from models.errors import ModelError
from models.store import Store

EXTRACT_BAR_MS = 50.0
WARM = 10


def measure_quotes(client: SyncClient, asked: list[questions.Question]) -> dict[str, float]:
    for question in asked[:WARM]:
        client.ask(question.text, mode="extract")
    seconds = []
    for question in asked:
        started = time.perf_counter()
        client.ask(question.text, mode="extract")
        seconds.append(time.perf_counter() - started)
    return figures.spread(seconds)


def judge(client: SyncClient, asked: list[questions.Question]) -> dict[str, Any]:
    """What became of the labelled sample questions at the threshold that a box starts with."""
    answerable = [question for question in asked if question.is_answerable]
    absent = [question for question in asked if not question.is_answerable]
    right = declined = 0
    wrong = []
    for question in answerable:
        answer = client.ask(question.text, mode="extract")
        if answer.grounded and question.is_held_by(
            f"{answer.answer} {' '.join(hit.quote for hit in answer.citations)}"
        ):
            right += 1
        else:
            wrong.append(question.text)
    for question in absent:
        if client.ask(question.text, mode="extract").grounded:
            wrong.append(question.text)
        else:
            declined += 1
    return {"answerable": len(answerable), "right": right, "absent": len(absent), "declined": declined, "wrong": wrong}


def measure_phrased(client: SyncClient, asked: list[questions.Question]) -> dict[str, Any]:
    """Time to the first verified sentence, and to the end, of streamed answers that the writer may phrase."""
    first: list[float] = []
    whole: list[float] = []
    phrased = 0
    for question in asked:
        started = time.perf_counter()
        seen = False
        for event in client.ask_stream(question.text):
            match event:
                case Sentence() if not seen:
                    first.append(time.perf_counter() - started)
                    seen = True
                case Answer(model=model):
                    whole.append(time.perf_counter() - started)
                    phrased += model is not None
                case _:
                    pass
    return {
        "phrased_by_the_writer": phrased,
        "first_sentence": figures.spread(first) if first else None,
        "whole": figures.spread(whole),
    }


def installed(names: tuple[str, ...]) -> list[str]:
    """Those of ``names`` that this machine's store holds."""
    store = Store(Paths.from_environment().models, quota_bytes=2**60)
    held = []
    for name in dict.fromkeys(names):
        try:
            store.writer_path(name)
        except ModelError:
            continue
        held.append(name)
    return held


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--squad", type=Path, help="a SQuAD 2.0 file: its paragraphs are added, its questions asked")
    arguments.add_argument("--questions", type=int, default=200, help="so many of them")
    arguments.add_argument("--phrased", type=int, default=10, help="so many phrased answers from each writer")
    given = arguments.parse_args()
    documents, asked = questions.samples()
    more: list[questions.Question] = []
    if given.squad:
        paragraphs, more = questions.squad(given.squad)
        documents |= paragraphs
    result: dict[str, Any] = {"machine": describe(), "documents": len(documents), "extract_bar_ms": EXTRACT_BAR_MS}
    for writer in installed((SMALL_WRITER, ModelsConfig().writer)):
        with Box(writer) as box, box.client() as client:
            box.add(documents)
            if "extract" not in result:
                result["extract"] = measure_quotes(client, [*asked, *more[: given.questions]])
                result["samples"] = judge(client, asked)
            answerable = [question for question in asked if question.is_answerable]
            if given.phrased:
                result[writer] = measure_phrased(client, answerable[: given.phrased])
    print(json.dumps(result))


if __name__ == "__main__":
    main()

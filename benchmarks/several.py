"""Questions that one sentence does not answer, over the sample documents: each assembly, each writer.

An answer's quotes are compared with those that must be there; a sentence is wrong where its words do not stand in that
order in a document that it cites. What is declined rightly counts as right.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import figures, questions
from benchmarks.answer import installed
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.machine import describe
from edge_runtime.client import SyncClient
from edge_runtime.config import ModelsConfig
from edge_runtime.knowledge_protocol import Answer, AskMode, Assembly, Citation, Sentence, Sources

QUESTIONS = Path(__file__).with_suffix(".toml")
WAYS: tuple[tuple[str, AskMode, Assembly], ...] = (
    ("extract", "extract", "auto"),
    ("auto", "auto", "auto"),
    ("stuff", "auto", "stuff"),
    ("map-reduce", "auto", "map-reduce"),
    ("refine", "auto", "refine"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    answer: Answer
    sources: list[Citation]
    sentences: list[Sentence]
    first_s: float  # until the first sentence, or the end
    seconds: float


def ask(client: SyncClient, question: str, mode: AskMode, assembly: Assembly) -> Asked:
    started = time.perf_counter()
    sources: list[Citation] = []
    sentences: list[Sentence] = []
    first = 0.0
    for event in client.ask_stream(question, mode=mode, assembly=assembly):
        match event:
            case Sources(citations=citations):
                sources = citations
            case Sentence():
                first = first or time.perf_counter() - started
                sentences.append(event)
            case Answer():
                seconds = time.perf_counter() - started
                return Asked(event, sources, sentences, first or seconds, seconds)
    raise RuntimeError(f"no answer to: {question}")


def wrong(asked: Asked, texts: dict[str, str]) -> list[str]:
    """Sentences with citations none of whose documents has their words in their order."""
    found = []
    for sentence in asked.sentences:
        held = [texts[asked.sources[at].document_id] for at in sentence.citations]
        if held and not any(_flat(sentence.text) in text for text in held):
            found.append(sentence.text)
    return found


def judge(
    client: SyncClient, listed: list[dict[str, Any]], texts: dict[str, str], mode: AskMode, assembly: Assembly
) -> dict[str, Any]:
    """What became of every question asked in one way."""
    expected = held = grounded = declined = calls = cited = said = 0
    liars: list[str] = []
    seconds: list[float] = []
    first: list[float] = []
    for item in listed:
        asked = ask(client, item["question"], mode, assembly)
        quotes = [_flat(one.quote) for one in asked.answer.citations] if asked.answer.grounded else []
        expected += len(item["quotes"])
        held += sum(any(_flat(text) in quote for quote in quotes) for text in item["quotes"])
        grounded += asked.answer.grounded and bool(item["quotes"])
        declined += not asked.answer.grounded and not item["quotes"]
        calls += asked.answer.calls
        said += len(asked.sentences)
        cited += sum(bool(sentence.citations) for sentence in asked.sentences)
        liars += wrong(asked, texts)
        seconds.append(asked.seconds)
        first.append(asked.first_s)
    answerable = sum(bool(item["quotes"]) for item in listed)
    return {
        "questions": len(listed),
        "quotes_found": round(held / expected, 3),
        "grounded": round(grounded / answerable, 3),
        "declined_rightly": f"{declined} of {len(listed) - answerable}",
        "sentences": said,
        "sentences_with_citations": cited,
        "wrong_sentences": liars,
        "calls": calls,
        "first_sentence": figures.spread(first),
        "whole": figures.spread(seconds),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--writer", action="append", help="only these writers")
    arguments.add_argument("--questions", type=int, default=0, help="only every so-manieth question; 0: all")
    given = arguments.parse_args()
    documents, _ = questions.samples()
    listed = tomllib.loads(QUESTIONS.read_text("utf-8"))["questions"][:: given.questions or 1]
    result: dict[str, Any] = {"machine": describe(), "documents": len(documents)}
    for writer in installed(tuple(given.writer or (SMALL_WRITER, ModelsConfig().writer))):
        with Box(writer) as box, box.client() as client:
            box.add(documents)
            texts = {
                one.id: _flat(client.document_text(one.id, 0, one.characters).text)
                for one in client.documents().documents
            }
            client.ask("What does alarm E17 mean?")  # the engine's first request of all
            result[writer] = {name: judge(client, listed, texts, mode, assembly) for name, mode, assembly in WAYS}
    print(json.dumps(result))


def _flat(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


if __name__ == "__main__":
    main()

"""The questions that benchmarks ask, with what a right answer holds: our samples, SQuAD 2.0 and CLINC150."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

SAMPLES = Path(str(files("edge_runtime") / "samples"))


@dataclass(frozen=True, slots=True)
class Question:
    """``golds``: any of them is a right answer; none where the documents do not say. ``document`` is its group."""

    text: str
    document: str
    golds: tuple[str, ...]

    @property
    def is_answerable(self) -> bool:
        return bool(self.golds)

    def is_held_by(self, quote: str) -> bool:
        """Whether ``quote`` holds a gold answer, letter case and spacing aside."""
        within = _flat(quote)
        return any(_flat(gold) in within for gold in self.golds)


def samples() -> tuple[dict[str, bytes], list[Question]]:
    """The sample documents, and the questions about them."""
    documents = {path.name: path.read_bytes() for path in sorted((SAMPLES / "documents").iterdir())}
    listed = tomllib.loads((SAMPLES / "questions.toml").read_text("utf-8"))
    asked = [
        Question(item["question"], item.get("document", "absent"), tuple(item.get("expect", ())[:1]))
        for item in (*listed["demo"], *listed["questions"])
    ]
    return documents, asked


def squad(path: Path) -> tuple[dict[str, bytes], list[Question]]:
    """SQuAD 2.0 (Rajpurkar et al. 2018): every paragraph a document of its own, and every question about it."""
    documents: dict[str, bytes] = {}
    asked: list[Question] = []
    for article in json.loads(path.read_text("utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            name = f"{article['title'].lower()}-{number:02d}.txt"
            documents[name] = paragraph["context"].encode()
            for item in paragraph["qas"]:
                golds = () if item["is_impossible"] else tuple({answer["text"] for answer in item["answers"]})
                asked.append(Question(item["question"], name, golds))
    return documents, asked


def clinc(path: Path) -> tuple[list[str], list[str]]:
    """CLINC150 (Larson et al. 2019): test questions outside its 150 everyday intents, and inside them."""
    splits = json.loads(path.read_text("utf-8"))
    return [text for text, _ in splits["oos_test"]], [text for text, _ in splits["test"]]


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()

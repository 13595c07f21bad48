"""The sample documents answer what ``questions.toml`` says they answer, and the questions stay worth asking."""

from __future__ import annotations

import io
import re
import tomllib
from importlib.resources import files
from typing import Any

import pytest
from pypdf import PdfReader

SAMPLES = files("edge_runtime") / "samples"
QUESTIONS: dict[str, list[dict[str, Any]]] = tomllib.loads((SAMPLES / "questions.toml").read_text("utf-8"))
EVERY = [*QUESTIONS["demo"], *QUESTIONS["questions"]]


def _text(document: str) -> str:
    content = (SAMPLES / "documents" / document).read_bytes()
    if document.endswith(".pdf"):
        text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content), strict=True).pages)
    else:
        text = content.decode("utf-8")
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(
    "item", [item for item in EVERY if item["kind"] != "absent"], ids=lambda item: item["question"]
)
def test_the_named_document_holds_what_is_expected(item: dict[str, Any]) -> None:
    text = _text(item["document"])
    assert item["expect"]
    assert [words for words in item["expect"] if words not in text] == []


def test_the_demo_shows_a_fact_a_procedure_and_a_gap() -> None:
    assert [item["kind"] for item in QUESTIONS["demo"]] == ["fact", "procedure", "absent"]


def test_a_third_of_the_questions_cannot_be_answered() -> None:
    kinds = [item["kind"] for item in QUESTIONS["questions"]]
    assert len(kinds) >= 40
    assert 0.3 <= kinds.count("absent") / len(kinds) <= 0.4


def test_no_question_is_asked_twice() -> None:
    asked = [item["question"] for item in EVERY]
    assert len(set(asked)) == len(asked)


def test_every_document_is_asked_about() -> None:
    there = {document.name for document in (SAMPLES / "documents").iterdir()}
    assert {item["document"] for item in EVERY if item["kind"] != "absent"} == there

"""An answer says what its quotes say: invented facts, swapped numbers and lost negations are dropped."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.knowledge.answer import extract, phrase_prompt, readable, support
from edge_runtime.knowledge.evidence import Evidence, Passage, Quote, Unit
from edge_runtime.knowledge.words import understand


def quote(*sentences: str, heading: str | None = None, core: int = 0) -> Quote:
    text, units, at = "\n".join(sentences), [], 0
    for sentence in sentences:
        units.append(Unit(at, at + len(sentence), sentence, item=False))
        at += len(sentence) + 1
    found = Passage(
        document_id="d", document="manual.md", heading=heading, page=None, start=0, text=text, units=tuple(units),
        vectors=np.zeros((len(units), 4), np.float32), dense=0.6, lexical=0.5,
    )  # fmt: skip
    return Quote(passage=found, core=core, first=0, last=len(units) - 1, score=1.0, cosine=0.6)


GLAND = quote("The gland bolts of pump P12 are tightened to 25 Nm.", "Do not tighten them above 30 Nm.")
ASKED = understand("What torque do the gland bolts of pump P12 need?")


@pytest.mark.parametrize(
    "sentence",
    [
        "The gland bolts of pump P12 are tightened to 25 Nm.",
        "The gland bolts need 25 Nm.",
        "Do not tighten them above 30 Nm.",
    ],
)
def test_a_sentence_in_the_quotes_words_is_supported(sentence: str) -> None:
    assert support(ASKED, sentence, [GLAND]) == (0,)


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ("another number", "The gland bolts of pump P12 are tightened to 35 Nm."),
        ("another unit", "The gland bolts of pump P12 are tightened to 25 bar."),
        ("another pump", "The gland bolts of pump P13 are tightened to 25 Nm."),
        ("negation lost", "Tighten them above 30 Nm."),
        ("negation added", "The gland bolts of pump P12 are not tightened to 25 Nm."),
        ("invented reason", "The gland bolts need 25 Nm because of corrosion."),
        ("only the question again", "The gland bolts of pump P12 need torque."),
        ("a refusal", "The quotes do not say what torque the gland bolts need."),
        ("nothing at all", "..."),
    ],
)
def test_a_sentence_that_says_something_else_is_dropped(attack: str, sentence: str) -> None:
    assert support(ASKED, sentence, [GLAND]) == (), attack


def test_a_swapped_direction_is_dropped() -> None:
    fealty = quote("Rollo swore fealty to King Charles III at Epte.")
    asked = understand("Who swore fealty?")
    assert support(asked, "Rollo swore fealty to King Charles III at Epte.", [fealty]) == (0,)
    assert support(asked, "At Epte King Charles III swore fealty to Rollo.", [fealty]) == ()


def test_the_quote_that_supports_is_the_one_cited() -> None:
    other = quote("Bearing grease is lithium soap.")
    assert support(ASKED, "The gland bolts need 25 Nm.", [other, GLAND]) == (1,)


def test_a_procedure_is_answered_by_its_steps_each_cited() -> None:
    steps = quote(
        "To start pump P12:", "1. Open V2 fully.", "2. Press start.", "3. Open V3.", "Motor M12 rests afterwards."
    )
    draft = extract(understand("How do I start pump P12?"), Evidence((steps,), 0.9, {}))
    assert [cited.text for cited in draft.sentences] == ["1. Open V2 fully.", "2. Press start.", "3. Open V3."]
    assert [draft.quotes[cited.quotes[0]].text for cited in draft.sentences] == [
        cited.text for cited in draft.sentences
    ]


def test_two_lists_are_not_joined() -> None:
    steps = quote("1. Open V2.", "2. Press start.", "To stop:", "1. Press stop.", "2. Close V3.", core=3)
    draft = extract(understand("How do I stop the pump?"), Evidence((steps,), 0.9, {}))
    assert [cited.text for cited in draft.sentences] == ["1. Press stop.", "2. Close V3."]


def test_a_fact_is_answered_by_the_sentence_that_scored() -> None:
    draft = extract(ASKED, Evidence((GLAND,), 0.9, {}))
    assert [cited.text for cited in draft.sentences] == ["The gland bolts of pump P12 are tightened to 25 Nm."]


def test_a_table_row_reads_as_a_sentence() -> None:
    assert readable("| E17 | Low suction pressure |") == "E17: Low suction pressure"


def test_the_writer_sees_quotes_and_question_only() -> None:
    (_, rules), (role, asked) = phrase_prompt("What torque?", [GLAND])
    assert role == "user"
    assert "quotes alone" in rules
    assert asked.endswith("Question: What torque?")
    assert "[1] The gland bolts" in asked

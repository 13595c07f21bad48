"""An answer says what its quotes say: invented facts, swapped numbers and lost negations are dropped."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.knowledge.answer import extract, phrase_prompt, readable, supports
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
        "Gland bolts of pump P12: tightened to 25 Nm.",
        "The bolts of pump P12 are tightened to 25 Nm.",
    ],
)
def test_a_sentence_in_the_quotes_words_is_supported(sentence: str) -> None:
    assert supports(ASKED, GLAND, sentence)


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ("another number", "The gland bolts of pump P12 are tightened to 35 Nm."),
        ("another unit", "The gland bolts of pump P12 are tightened to 25 bar."),
        ("another pump", "The gland bolts of pump P13 are tightened to 25 Nm."),
        ("negation lost", "Tighten them above 30 Nm."),
        ("negation added", "The gland bolts of pump P12 are not tightened to 25 Nm."),
        ("invented reason", "The gland bolts are tightened to 25 Nm because of corrosion."),
        ("a word of the question", "The torque of the gland bolts is 25 Nm."),
        ("two sentences made one", "The gland bolts of pump P12 are tightened to 30 Nm."),
        ("a sentence beside the point", "Do not tighten them above 30 Nm."),
        ("only the question again", "The gland bolts of pump P12."),
        ("a refusal", "The quotes do not say what torque the gland bolts need."),
        ("nothing at all", "..."),
    ],
)
def test_a_sentence_that_says_something_else_is_dropped(attack: str, sentence: str) -> None:
    assert not supports(ASKED, GLAND, sentence), attack


@pytest.mark.parametrize(
    ("question", "source", "lie"),
    [
        (
            "What torque do the gland bolts of pump P12 need?",
            "The casing bolts of pump P12 are tightened to 210 Nm.",
            "The torque of the gland bolts of pump P12 is 210 Nm.",
        ),
        (
            "Who is the manufacturer of pump P12?",
            "The packing ring for pump P12 has the part number AR-1012.",
            "The manufacturer of pump P12 is AR-1012.",
        ),
        (
            "How often is the oil of pump P12 changed?",
            "The duty pump changes every 168 hours, so that P11 and P12 wear evenly.",
            "The oil of pump P12 is changed every 168 hours.",
        ),
        (
            "Which grade is the oil of rotor R9?",
            "The rotor R10 takes oil of grade 10.",
            "The oil of rotor R9 is grade 10.",
        ),
        (
            "What is the suction pressure of P12?",
            "Alarm E17: the suction pressure of P12 was below 0.4 bar.",
            "The suction pressure of P12 was 0.4 bar.",
        ),
    ],
)
def test_the_subject_of_the_question_is_not_joined_to_anothers_value(question: str, source: str, lie: str) -> None:
    assert not supports(understand(question), quote(source), lie)


@pytest.mark.parametrize(
    ("source", "lie"),
    [
        ("The drive-end bearing takes 30 g and the other bearing 20 g.", "The drive-end bearing takes 20 g."),
        ("The red lamp means stop and the green lamp means go.", "The red lamp means go."),
        ("Lamp L1 is red, lamp L6 is white.", "Lamp L1 is white."),
        ("The non-drive-end bearing is greased with 20 g.", "The drive-end bearing is greased with 20 g."),
    ],
)
def test_the_values_within_one_sentence_are_not_swapped(source: str, lie: str) -> None:
    assert not supports(understand("What does it take, mean or show?"), quote(source), lie)


def test_the_values_of_two_neighbours_are_not_swapped() -> None:
    lamps = quote("The light of lamp L1 is red.", "The light of lamp L6 is white.")
    asked = understand("What colour is the light of lamp L1?")
    assert supports(asked, lamps, "The light of lamp L1 is red.")
    assert not supports(asked, lamps, "The light of lamp L1 is white.")


def test_a_swapped_direction_is_dropped() -> None:
    fealty = quote("Rollo swore fealty to King Charles III at Epte.")
    asked = understand("Who swore fealty?")
    assert supports(asked, fealty, "Rollo swore fealty to King Charles III at Epte.")
    assert not supports(asked, fealty, "At Epte King Charles III swore fealty to Rollo.")


def test_a_heading_lends_its_subject() -> None:
    titled = quote("It means low suction pressure.", heading="Alarm E17")
    assert supports(understand("What does alarm E17 mean?"), titled, "Alarm E17 means low suction pressure.")


def test_a_sentence_that_announces_code_brings_the_code() -> None:
    run = quote("Run the tool so:", "flash --port 1 image.bin", "It takes a minute.")
    draft = extract(understand("Which command flashes the tool?"), Evidence((run,), 0.9, {}))
    assert [cited.text for cited in draft.sentences][:2] == ["Run the tool so:", "flash --port 1 image.bin"]


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
    (_, rules), (role, asked) = phrase_prompt("What torque?", GLAND)
    assert role == "user"
    assert "quote alone" in rules
    assert asked.endswith("Question: What torque?")
    assert "The gland bolts" in asked

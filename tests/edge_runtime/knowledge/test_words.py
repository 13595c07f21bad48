"""A question is taken apart the way a reader would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.words import codes, numbers, stem, stems, understand


@pytest.mark.parametrize(
    ("one", "other"),
    [("valve", "valves"), ("operated", "operates"), ("greasing", "greased"), ("replacement", "replace")],
)
def test_forms_of_one_word_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_codes_keep_their_digits_and_are_not_stemmed() -> None:
    assert stems("Alarms E17 and P12s") == ["alarm", "e17", "p12s"]
    assert codes("What do E17 and P-12 mean in the 1990s, the 3rd time?") == ["e17", "p-12"]


def test_numbers_lose_separators_and_endings_but_not_decimals() -> None:
    assert numbers("1,480 rpm at 5.0 bar in the 11th year of the 1990s") == ["1480", "5.0", "11", "1990"]


def test_the_first_word_is_no_name() -> None:
    asked = understand("Which Normans fought for Rollo?")
    assert asked.names == {"normans", "rollo"}


@pytest.mark.parametrize(
    "question", ["How do I start pump P12?", "What are the steps to stop it?", "how to grease the bearing"]
)
def test_a_question_for_steps_is_procedural(question: str) -> None:
    assert understand(question).procedural


@pytest.mark.parametrize("question", ["How many bolts are there?", "What does E17 mean?", "How much does it weigh?"])
def test_a_question_for_a_fact_is_not_procedural(question: str) -> None:
    assert not understand(question).procedural


@given(st.text(max_size=400))
def test_any_text_can_be_taken_apart(text: str) -> None:
    asked = understand(text)
    assert asked.terms == frozenset(stems(text))

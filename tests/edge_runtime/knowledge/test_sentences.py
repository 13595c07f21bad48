"""Sentences of prose, lists, tables and logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.sentences import MAX_CHARS, split


def said(text: str) -> list[str]:
    return [text[span.start : span.end] for span in split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met Mr. J. Doe. They left.", ["Dr. Smith met Mr. J. Doe.", "They left."]),
        ("Set 3.5 bar at 0.25 A. Then wait.", ["Set 3.5 bar at 0.25 A.", "Then wait."]),
        ("See Fig. 3 and No. 7 for e.g. Valve 4. Done.", ["See Fig. 3 and No. 7 for e.g. Valve 4.", "Done."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("It cost $5. 20 people paid.", ["It cost $5.", "20 people paid."]),
        (
            "A wrapped line that goes on\nto the next one. End.",
            ["A wrapped line that goes on\nto the next one.", "End."],
        ),
        ("- first item\n- second. Has two.\n  and wraps", ["- first item", "- second.", "Has two.\n  and wraps"]),
        ("1. Open the lid.\n2. Close it.", ["1. Open the lid.", "2. Close it."]),
        ("| a | b |\n|---|---|\n| 1. X | 2 |", ["| a | b |", "|---|---|", "| 1. X | 2 |"]),
        ("# Pump 3. Overview\nIt pumps.", ["# Pump 3. Overview", "It pumps."]),
        ("Gland bolts: 25 Nm\nCover bolts: 40 Nm", ["Gland bolts: 25 Nm", "Cover bolts: 40 Nm"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_text_is_cut_where_a_reader_would_cut_it(text: str, expected: list[str]) -> None:
    assert said(text) == expected


def test_log_lines_are_sentences_of_their_own() -> None:
    lines = [
        "2026-03-02 04:12:07 WARN pump2 Pressure low. Retrying",
        "2026-03-02 04:12:09 ERROR pump2 E17 raised. Pump stopped.",
        "[04:13:00] operator acknowledged E17",
    ]
    assert said("\n".join(lines)) == lines


def test_a_paragraph_of_the_norman_chronicle_is_cut_at_its_full_stops() -> None:
    text = (
        "The Normans (Norman: Nourmands; French: Normands) were the people who in the 10th and 11th centuries gave "
        "their name to Normandy. They were descended from Norse raiders. Under King Charles III. they settled."
    )
    assert len(said(text)) >= 3
    assert said(text)[1] == "They were descended from Norse raiders."


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n\t|-#:,(\"'…éz。"), max_size=400), st.integers(0, 1000))
def test_every_character_that_is_not_space_is_in_exactly_one_sentence(text: str, start: int) -> None:
    spans = split(text, start)
    seen = [position for span in spans for position in range(span.start, span.end)]
    assert seen == sorted(set(seen))
    assert all(span.start < span.end <= span.start + MAX_CHARS for span in spans)
    missing = {start + at for at, character in enumerate(text) if not character.isspace()} - set(seen)
    assert not missing
    assert all(not text[span.start - start].isspace() and not text[span.end - start - 1].isspace() for span in spans)


def test_an_endless_line_is_cut_at_spaces() -> None:
    spans = split("word " * 1000)
    assert len(spans) > 4
    assert all(span.end - span.start <= MAX_CHARS for span in spans)


@pytest.mark.parametrize(
    "text", ["." * 200_000 + "x", " " * 200_000 + "x", "a   b" * 60_000, "|" * 200_000, "-: " * 70_000]
)
def test_hostile_lines_take_no_more_than_linear_work(text: str) -> None:
    assert sum(span.end - span.start for span in split(text)) > 0

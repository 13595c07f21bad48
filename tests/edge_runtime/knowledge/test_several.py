"""Which sentences bear on a question that asks for several things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.evidence import Passage
from edge_runtime.knowledge.several import MOST, MOST_OF_SUMMARY, bearings
from edge_runtime.knowledge.words import understand
from tests.edge_runtime.knowledge.passages import FAR, NEAR, QUESTION, passage

HEAD = "| Code | Meaning | Priority |"


def taken(question: str, *passages: Passage, summary: bool = False) -> list[str]:
    found = bearings(understand(question), QUESTION, passages, summary=summary)
    return [bearing.quote.text for bearing in found if bearing.sure]


def test_the_rows_of_a_table_are_found_by_their_cells_and_by_what_its_head_and_heading_say() -> None:
    rows = ("| A01 | Level low | 2 |", "| A02 | Level high | 1 |", "| A03 | Screen blocked | 2 |", "| A05 | Fire | 1 |")
    table = passage(*rows, items=True, under=HEAD, heading="Alarms")
    prose = passage("The station was built in 1987.", "Its pumps are blue.", vectors=[FAR, FAR], name="other.md")
    assert taken("Which alarms have priority 1?", table, prose) == [rows[1], rows[3]]


def test_a_row_is_picked_out_by_its_code_although_prose_says_it_in_more_of_the_question_s_words() -> None:
    rows = ["| Bearing | B3 |", "| Sleeve | B2 |", "| Ring | B3 |", *(f"| Fuse {n} A | C{n} |" for n in range(4, 24))]
    shelves = passage(*rows, items=True, under="| Part | Shelf |")
    prose = passage("The spare bearing, a part of the pump, lies on shelf B3.", name="notes.md")
    found = taken("Which parts lie on shelf B3?", shelves, prose)
    assert set(found) == {rows[0], rows[2], prose.units[0].text}


def test_the_head_of_a_table_and_a_heading_line_are_no_answers() -> None:
    table = passage(HEAD, "| A02 | Level high | 1 |", items=True, under=HEAD)
    title = passage("Alarms and their priority 1", name="title.md")
    assert taken("Which alarms have priority 1?", table, title) == ["| A02 | Level high | 1 |"]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("Which alarms stop pump P12?", "Alarm E14 stops pump P13."),
        ("Which alarms have priority 7?", "Alarm A02 has priority 1."),
        ("Which bolts take 25 Nm?", "The casing bolts take 210 Nm."),
    ],
)
def test_a_sentence_about_another_thing_of_the_same_kind_does_not_bear_on_the_question(
    question: str, sentence: str
) -> None:
    assert bearings(understand(question), QUESTION, [passage(sentence)]) == ()


def test_a_sentence_that_names_the_thing_asked_for_beside_another_one_does() -> None:
    assert taken("Which bearings has pump P12?", passage("Pumps P11 and P12 have bearings 6313 and 6311."))


def test_of_a_list_that_has_hardly_a_word_of_the_question_nothing_is_left() -> None:
    parts = passage("The ring has the part number 12.", "The sleeve has the part number 13.")
    assert bearings(understand("suppliers with telephone, address and contact"), QUESTION, [parts]) == ()


def test_the_same_sentence_in_two_documents_is_told_once_and_its_denial_as_well() -> None:
    one = passage("The valve V2 must be open.", "The valve V2 must not be open.")
    other = passage("The valve V2 must be open.", name="copy.md")
    assert sorted(taken("Which states must valve V2 have?", one, other)) == [
        "The valve V2 must be open.",
        "The valve V2 must not be open.",
    ]


def test_a_summary_is_short_and_does_not_repeat_itself() -> None:
    said = [f"The spare rotor number {n} is kept dry, upright and coated with oil of the kind {n}." for n in range(12)]
    others = [
        f"A spare rotor {word} beside the workshop."
        for word in ("stands", "waits", "lies", "hangs", "leans", "rests", "is")
    ]
    found = taken("the spare rotor", passage(*said, *others), summary=True)
    assert 1 < len(found) <= MOST_OF_SUMMARY
    assert sum(sentence in said for sentence in found) == 1


def test_a_question_of_stop_words_and_an_empty_index_bear_nothing_that_fails() -> None:
    assert bearings(understand("which of these are it"), QUESTION, []) == ()
    bearings(understand("which of these are it"), QUESTION, [passage("It is.", "These are those.")])


@given(
    st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=30),
    st.text(max_size=80),
    st.booleans(),
    st.booleans(),
)
def test_whatever_the_documents_hold_each_bearing_is_one_whole_sentence_and_none_is_told_twice(
    sentences: list[str], question: str, items: bool, summary: bool
) -> None:
    vectors = [NEAR if n % 2 else FAR for n in range(len(sentences))]
    found = bearings(
        understand(question), QUESTION, [passage(*sentences, vectors=vectors, items=items)], summary=summary
    )
    told = [bearing.quote.text for bearing in found]
    assert set(told) <= set(sentences)
    assert len(told) == len({bearing.quote.start for bearing in found}) <= MOST
    assert [bearing.quote.score for bearing in found] == sorted((b.quote.score for b in found), reverse=True)

"""What of a query is searched for, and that its cost is bounded whatever the words are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.knowledge.terms import MAX_TERMS, Counted, Terms, counted, plan
from edge_runtime.knowledge.wording import READ_WORDS, Term, dissect

TOTAL = 100_000


def planned(most_rows: int = 1000, most_walked: int = 10_000, **chunks: int) -> Terms:
    rows = sorted(
        (Counted(Term(word, "word"), (word,), count) for word, count in chunks.items()), key=lambda r: r.chunks
    )
    return plan(rows, TOTAL, most_rows=most_rows, most_walked=most_walked)


def texts(found: Terms) -> list[str]:
    return [one.text for one in found.expressions]


def test_rare_words_are_joined_by_or() -> None:
    found = planned(gland=10, bolt=20)
    assert texts(found) == ['"gland" OR "bolt"']
    assert (found.known, found.dropped) == (1.0, ())


def test_a_common_word_counts_only_where_a_rare_one_stands() -> None:
    (expression,) = planned(gland=10, bolt=900, pump=2000).expressions
    assert expression.text == '("gland" OR "bolt") AND ("gland" OR "bolt" OR "pump" OR "pump")'
    assert expression.copies == 2


def test_a_word_that_would_cost_too_much_is_left_out_and_named() -> None:
    found = planned(gland=10, pump=2000, water=90_000)
    assert found.dropped == ("water",)
    assert "water" not in texts(found)[0]


def test_where_every_word_is_common_the_rarest_are_needed_and_then_the_rarest_alone() -> None:
    found = planned(most_walked=60_000, list=5000, directory=6000, files=9000)
    assert texts(found) == [
        '"list" AND "directory" AND ("list" OR "directory" OR "files" OR "files")',
        '"list" AND ("list" OR "directory" OR "files" OR "directory" OR "files")',
    ]


def test_one_word_alone_is_searched_for_however_common_it_is() -> None:
    assert texts(planned(the=90_000)) == ['"the"']
    assert planned(the=90_000).dropped == ()


def test_a_word_that_no_passage_holds_stays_searched_for_since_one_may_come() -> None:
    found = planned(gland=10, chromodynamics=0)
    assert texts(found) == ['"chromodynamics" OR "gland"']
    assert 0 < found.known < 1
    assert planned(quantum=0).known == 0


def test_no_words_make_no_expression() -> None:
    assert plan((), TOTAL).expressions == ()


def test_words_that_are_one_to_the_index_are_searched_for_once() -> None:
    terms = [Term(text, "word") for text in ("bolts", "bolt", "?")]
    rows = counted(terms, {"bolts": ["bolt"], "bolt": ["bolt"], "?": []}, {"bolt": 3})
    assert [row.term.text for row in rows] == ["bolts"]


def test_a_code_of_several_parts_counts_as_its_rarest() -> None:
    (row,) = counted([Term("P 12", "code")], {"P 12": ["p", "12"]}, {"p": 500, "12": 7})
    assert row.chunks == 7


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(0, TOTAL), max_size=60))
def test_the_cost_is_bounded_and_no_word_is_lost_without_being_named(chunks: dict[str, int]) -> None:
    rows = sorted(
        (Counted(Term(word, "word"), (word,), count) for word, count in chunks.items()), key=lambda r: r.chunks
    )
    found = plan(rows, TOTAL, most_rows=4000, most_walked=50_000)
    named = set(found.dropped)
    for expression in found.expressions:
        used = re.findall(r'"([^"]*)"', expression.text)
        assert set(used) | named == set(chunks)
        assert len(set(used)) <= MAX_TERMS
        assert sum(chunks[word] for word in used) <= 50_000 or len(set(used)) == 1
    assert bool(found.expressions) == bool(chunks)


# ---- wording -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    ["E17", "P-12", "ENOENT", "/etc/fstab", "~/notes", "--no-pager", "os.path.join", "main.c", "malloc()", "n_3",
     "std::vector", "camelCase", "12-345-678", "10.0.0.1", "0x7fff", "RFC2119", "v1.2.3", "C:\\\\pump", "48151623"],
)  # fmt: skip
def test_identifiers_part_numbers_and_paths_are_codes(code: str) -> None:
    found = dissect(f"what about {code}, please?")
    assert found.codes == (code,)
    assert found.terms[0].kind == "code"


@pytest.mark.parametrize(
    "text",
    ["in the 1990s", "the 20th of May 1066", "and/or", "e.g. a pump", "U.S. troops", "24-hour", "Don't stop",
     "I am here", "WHAT IS THAT THEN"],
)  # fmt: skip
def test_what_people_write_is_no_code(text: str) -> None:
    assert dissect(text).codes == ()


@pytest.mark.parametrize("marks", ['""', "“”", "„“", "«»", "``", "''"])
def test_quotation_marks_make_a_phrase_whose_words_are_searched_for_too(marks: str) -> None:
    found = dissect(f"where is {marks[0]}low suction pressure{marks[1]} told")
    assert found.quoted == ("low suction pressure",)
    assert [term.text for term in found.terms] == ["low suction pressure", "low", "suction", "pressure", "told"]


def test_a_single_mark_quotes_nothing() -> None:
    assert dissect("a 5\" pipe and the pump's valve").quoted == ()


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What does the alarm mean?", True),
        ("how do I tighten the bolts", True),
        ("the pump that was bought in May is leaking again", True),
        ("gland bolts torque", False),
        ("E17?", False),
        ("", False),
    ],
)
def test_questions_are_told_from_keywords(text: str, *, question: bool) -> None:
    assert dissect(text).question == question


def test_stop_words_go_unless_they_are_all_there_is() -> None:
    assert [term.text for term in dissect("What does the alarm mean?").terms] == ["alarm", "mean"]
    assert [term.text for term in dissect("who is it").terms] == ["who", "is", "it"]
    assert dissect("?!").terms == ()


@given(st.text(max_size=500) | st.text(alphabet="\"'“”«»`()*:^-+{}[] ANDORNEAR\0_.é/", max_size=80))
def test_terms_hold_no_character_that_could_be_syntax(text: str) -> None:
    found = dissect(text)
    assert all(re.fullmatch(r"\w+(?: \w+)*", term.text) for term in found.terms)
    assert len(found.terms) <= 3 * READ_WORDS
    assert len({term.text.casefold() for term in found.terms}) == len(found.terms)

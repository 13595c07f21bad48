"""What may reach a terminal, and how it is laid out."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cli.output import Wrapped, cells, clean, clean_line, dumps, fit, place, size, table
from edge_runtime.knowledge_protocol import Locator


@given(st.text(st.characters()))
def test_cleaned_text_holds_nothing_that_steers_a_terminal(text: str) -> None:
    left = {unicodedata.category(c) for c in clean(text) if c not in "\n\t"}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(c) for c in clean(text)} & {"LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI"}
    assert "\n" not in clean_line(text)


@given(st.text(st.characters(blacklist_categories=["C", "Zl", "Zp"], blacklist_characters="\u200e\u200f\u061c")))
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert clean(text) == text


@given(st.text())
def test_json_says_exactly_what_was_given(text: str) -> None:
    assert json.loads(dumps({"x": text})) == {"x": text}
    assert clean(dumps({"x": text})) == dumps({"x": text})


@given(st.lists(st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1), min_size=1))
def test_wrapping_keeps_every_word_and_the_width(words: list[str]) -> None:
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_runtime.cli.output.put", lambda text="", end="\n": written.append(text + end))
        text = Wrapped(20, indent=2)
        text.write(" ".join(words))
        text.end()
    lines = "".join(written).splitlines()
    assert " ".join(lines).split() == words
    assert all(cells(line) <= 20 or len(line.split()) == 1 for line in lines)


@given(st.text(st.characters(blacklist_categories=["C"])), st.integers(3, 30))
def test_fitted_text_is_never_wider_than_its_column(text: str, columns: int) -> None:
    assert cells(fit(text, columns)) <= columns


def test_a_table_lines_up_wide_characters() -> None:
    lines = table(("name", "n"), [("泵站.md", 1), ("a.md", 22)])
    assert lines == ["NAME     N", "泵站.md  1", "a.md     22"]


def test_sizes_and_places_read_as_people_say_them() -> None:
    assert [size(n) for n in (0, 2048, 5 * 2**20, 3 * 2**30)] == ["0 B", "2 KiB", "5 MiB", "3.0 GiB"]
    assert place(Locator(start=1, end=2, page=3, heading="Alarm E17")) == "Alarm E17, page 3"
    assert place(Locator(start=1, end=2)) == "characters 1 to 2"

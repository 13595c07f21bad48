"""Chunks cover a document, stay within their limit, and never cross a section."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.knowledge.chunking import MAX_TOKENS, chunk
from edge_runtime.knowledge.documents import Kind, Section
from edge_runtime.knowledge.tokens import token_offsets


def words(text: str) -> Sequence[tuple[int, int]]:
    """A stand-in tokenizer: pieces of at most four letters, and each other mark."""
    return [match.span() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)]


def prose(sentences: int, *, per_paragraph: int = 5) -> str:
    out = [f"Pump {number} moves water from basin {number} to the tower." for number in range(sentences)]
    return "\n\n".join(" ".join(out[at : at + per_paragraph]) for at in range(0, sentences, per_paragraph))


def test_a_short_section_is_one_chunk() -> None:
    text = "# A\nshort text here\n"
    (only,) = chunk(text, [Section(0, len(text), ("A",))], words)
    assert text[only.start : only.end] == text.strip()
    assert only.heading == ("A",)


def test_a_long_section_is_cut_at_paragraphs_with_an_overlap() -> None:
    text = prose(200)
    chunks = chunk(text, [Section(0, len(text), ("P",), 3)], words, max_tokens=600, overlap=50)
    assert len(chunks) > 3
    assert all(400 <= one.tokens <= 600 for one in chunks[:-1])
    for one, following in pairwise(chunks):
        shared = len(words(text[following.start : one.end]))
        assert 40 <= shared <= 50
        assert text[one.end : one.end + 2] == "\n\n"
    assert {one.page for one in chunks} == {3}


def test_a_bare_heading_goes_with_its_subsection_and_keeps_the_deeper_heading() -> None:
    text = "# Manual\n\n## Safety\n\nWear gloves. " + "Always read this first before you touch anything at all. " * 8
    sections = [Section(0, 10, ("Manual",)), Section(10, len(text), ("Manual", "Safety"))]
    (only,) = chunk(text, sections, words)
    assert only.start == 0
    assert only.heading == ("Manual", "Safety")


def test_short_sections_side_by_side_stay_apart() -> None:
    text = "## E17\nLow pressure.\n## E18\nHigh pressure.\n"
    at = text.index("## E18")
    chunks = chunk(text, [Section(0, at, ("E17",)), Section(at, len(text), ("E18",))], words)
    assert [one.heading for one in chunks] == [("E17",), ("E18",)]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[Section]]:
    parts = draw(
        st.lists(st.text(alphabet=st.sampled_from("abcde AB.!\n\n\u200b日é#-"), max_size=900), min_size=1, max_size=5)
    )
    repeated = [part * draw(st.integers(1, 4)) for part in parts]
    sections, at = [], 0
    for number, part in enumerate(repeated):
        heading = ("top",) if number % 2 else ("top", f"h{number}")
        sections.append(Section(at, at + len(part), heading))
        at += len(part)
    return "".join(repeated), sections


@settings(max_examples=150, deadline=None)
@given(documents(), st.integers(100, 300), st.integers(0, 30))
def test_chunks_cover_everything_and_none_is_over_the_limit(
    document: tuple[str, list[Section]], most: int, overlap: int
) -> None:
    text, sections = document
    chunks = chunk(text, sections, words, max_tokens=most, overlap=overlap)
    covered = {position for one in chunks for position in range(one.start, one.end)}
    assert {at for at, character in enumerate(text) if not character.isspace()} <= covered
    assert all(0 < len(words(text[one.start : one.end])) <= most or one.tokens == 0 for one in chunks)
    assert all(one.tokens == len(words(text[one.start : one.end])) for one in chunks)
    assert [one.start for one in chunks] == sorted(one.start for one in chunks)


@pytest.mark.parametrize("body", ["x" * 50_000, "日本" * 3000, "a-b/" * 3000, "\u200b" * 2000 + "é " * 2000])
def test_texts_without_sentences_stay_within_the_limit_of_the_real_tokenizer(
    embedder_files: tuple[Path, Path], body: str
) -> None:
    offsets = token_offsets(embedder_files[1])
    chunks = chunk(body, [Section(0, len(body))], offsets)
    covered = {position for one in chunks for position in range(one.start, one.end)}
    assert len([at for at, character in enumerate(body) if not character.isspace()]) <= len(covered)
    assert all(len(offsets(body[one.start : one.end])) <= MAX_TOKENS for one in chunks)


def test_an_overlap_that_eats_the_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        chunk("x", [Section(0, 1)], words, max_tokens=100, overlap=60)


def test_a_section_larger_than_one_part_for_the_tokenizer_is_cut_without_a_seam(
    embedder_files: tuple[Path, Path],
) -> None:
    offsets = token_offsets(embedder_files[1])
    text = " ".join(f"word{number}" for number in range(15_000))
    chunks = chunk(text, [Section(0, len(text))], offsets, max_tokens=600, overlap=50)
    assert all(300 <= one.tokens <= 600 for one in chunks[:-1])
    covered = {position for one in chunks for position in range(one.start, one.end)}
    assert {at for at, character in enumerate(text) if character != " "} <= covered


# ---- rows and code -------------------------------------------------------------------------------------------------


def lines_of(text: str, start: int, end: int) -> list[str]:
    return text[start:end].split("\n")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab c;:1.", min_size=1, max_size=120), min_size=1, max_size=120), st.integers(60, 200))
def test_no_row_is_cut_while_it_fits(rows: list[str], most: int) -> None:
    kept = [row.strip() for row in rows if row.strip()]
    text = "".join(f"{row}\n" for row in kept)
    chunks = chunk(text, [Section(0, len(text), ("a, b",), None, "rows")], words, max_tokens=most, overlap=20)
    found = [line for one in chunks for line in lines_of(text, one.start, one.end)]
    assert Counter(found) == Counter(kept)


def test_rows_longer_than_a_chunk_are_cut_and_nothing_is_lost() -> None:
    text = "a: 1\n" + "b: " + "word " * 500 + "\nc: 3\n"
    chunks = chunk(text, [Section(0, len(text), (), None, "rows")], words, max_tokens=100, overlap=0)
    covered = {position for one in chunks for position in range(one.start, one.end)}
    assert {at for at, character in enumerate(text) if not character.isspace()} <= covered
    assert all(one.tokens <= 100 for one in chunks)


def test_small_definitions_go_together_under_what_holds_them() -> None:
    parts = [f"def get_{number}(self):\n    return {number}\n" for number in range(4)]
    text = "".join(parts)
    sections, at = [], 0
    for number, part in enumerate(parts):
        sections.append(Section(at, at + len(part), ("pump.py", "Pump", f"get_{number}"), None, "code"))
        at += len(part)
    (only,) = chunk(text, sections, words)
    assert only.heading == ("pump.py", "Pump")
    assert (only.start, only.end) == (0, len(text.strip()))


def test_long_code_is_cut_at_blank_lines_and_without_an_overlap() -> None:
    block = "    first = read(pump)\n    second = write(pump, first)\n\n"
    text = "def run(pump):\n" + block * 60
    chunks = chunk(text, [Section(0, len(text), ("run.py", "run"), None, "code")], words, max_tokens=200)
    assert len(chunks) > 3
    for one, following in pairwise(chunks):
        assert one.end <= following.start
        assert text[following.start :].startswith("first = read")


@pytest.mark.parametrize("kind", ["prose", "rows"])
def test_words_put_in_at_the_top_leave_most_chunks_as_they_were(kind: Kind) -> None:
    lines = [
        f"Pump {number} moves water from basin {number * 7 % 100} to tower {number * 13 % 89}." for number in range(900)
    ]
    joint = " " if kind == "prose" else "\n"
    before, after = joint.join(lines), joint.join(["An entirely new line stands here.", *lines])

    def cut(text: str) -> Counter[str]:
        return Counter(text[one.start : one.end] for one in chunk(text, [Section(0, len(text), (), None, kind)], words))

    old, new = cut(before), cut(after)
    assert (old & new).total() >= 0.8 * old.total()

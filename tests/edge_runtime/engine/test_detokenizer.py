"""Text from byte pieces, and stop strings, however the bytes were cut."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.detokenizer import Detokenizer, StopStrings, Utf8Text


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def _naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character: the first stop string that is complete ends the text, the longest where several are."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_any_bytes_in_any_pieces_give_what_decoding_them_whole_gives(data: bytes, places: list[int]) -> None:
    text = Utf8Text()
    assert "".join(map(text.feed, _cut(data, places))) + text.finish() == data.decode("utf-8", "replace")


@given(st.text(max_size=30))
def test_half_a_character_is_never_shown(text: str) -> None:
    joined = Utf8Text()
    seen = ""
    for byte in text.encode():
        seen += joined.feed(bytes([byte]))
        assert text.startswith(seen)
    assert seen == text


_LETTERS = st.text("abé", max_size=25)


@given(_LETTERS, st.lists(st.text("abé", min_size=1, max_size=4), max_size=4), st.lists(st.integers(0, 60)))
def test_stop_strings_end_the_text_at_the_same_place_however_it_is_cut(
    text: str, stops: list[str], places: list[int]
) -> None:
    detokenizer = Detokenizer(stops)
    shown = ""
    for piece in _cut(text.encode(), places):
        shown += detokenizer.feed(piece)
    if not detokenizer.stopped:
        shown += detokenizer.finish()
    assert (shown, detokenizer.stopped) == _naive(text, stops)


@given(_LETTERS, st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3))
def test_what_is_held_back_could_still_become_a_stop_string(text: str, stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = ""
    for index, letter in enumerate(text):
        shown += matcher.feed(letter)
        if matcher.stopped:
            return
        held = text[len(shown) : index + 1]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_after_a_stop_string_nothing_more_is_shown() -> None:
    matcher = StopStrings(["END"])
    assert matcher.feed("the E") == "the "
    assert matcher.feed("ND of it") == ""
    assert matcher.stopped
    assert matcher.feed("more") == ""
    assert matcher.finish() == ""


def test_a_stop_string_completed_by_the_last_half_character_still_ends_the_text() -> None:
    detokenizer = Detokenizer(["\ufffd"])
    assert detokenizer.feed(b"a" + "é".encode()[:1]) == "a"
    assert detokenizer.finish() == ""
    assert detokenizer.stopped


def test_empty_stop_strings_are_ignored() -> None:
    detokenizer = Detokenizer([""])
    assert detokenizer.feed(b"text") == "text"
    assert not detokenizer.stopped

"""Guesses from the text itself, against a search from its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.speculation import MOST, NGRAM, Lookup

_TOKENS = st.lists(st.integers(0, 2), max_size=40)


def _reference(tokens: list[int]) -> list[int]:
    """What followed the last earlier place at which the last tokens stood."""
    for place in range(len(tokens) - 1, NGRAM - 1, -1):
        if len(tokens) >= NGRAM and tokens[place - NGRAM : place] == tokens[-NGRAM:]:
            return tokens[place : place + MOST]
    return []


@given(_TOKENS)
def test_the_guess_is_what_followed_the_last_time(tokens: list[int]) -> None:
    lookup = Lookup()
    lookup.extend(tokens)
    assert lookup.guess() == _reference(tokens)


@given(_TOKENS, st.lists(st.integers(1, 5), max_size=20))
def test_a_text_that_came_in_pieces_is_guessed_as_one_that_came_whole(tokens: list[int], cuts: list[int]) -> None:
    whole, pieces = Lookup(), Lookup()
    whole.extend(tokens)
    at = 0
    for size in [*cuts, len(tokens)]:
        pieces.extend(tokens[at : at + size])
        at += size
    assert pieces.guess() == whole.guess()


def test_a_text_that_never_repeats_itself_has_no_guess() -> None:
    lookup = Lookup()
    lookup.extend(list(range(100)))
    assert lookup.guess() == []


def _quoting() -> Lookup:
    lookup = Lookup()
    lookup.extend([*range(50), 10, 11, 12])
    return lookup


def test_guesses_that_come_true_pay_and_go_on() -> None:
    lookup = _quoting()
    for _ in range(20):
        guess = lookup.guess()
        assert lookup.pays(guess, 10.0, 15.0)
        lookup.tell(len(guess), len(guess))
    assert (lookup.drafted, lookup.accepted) == (20 * MOST, 20 * MOST)


def test_guesses_that_never_come_true_are_no_longer_tried() -> None:
    lookup = _quoting()
    tried = 0
    while lookup.pays(lookup.guess(), 10.0, 15.0):
        lookup.tell(MOST, 0)
        tried += 1
        assert tried < 20
    assert tried > 0


def test_guesses_too_dear_to_be_tried_are_compared_with_the_text_and_pay_once_they_come_true() -> None:
    lookup = _quoting()
    compared = 0
    while not lookup.pays(lookup.guess(), 10.0, 45.0):
        assert lookup.guess() == []
        lookup.extend(range(13 + MOST * compared, 13 + MOST * (compared + 1)))
        compared += 1
        assert compared < 5
    assert compared > 1
    assert lookup.drafted == 0


def test_one_wrong_token_ends_the_comparison() -> None:
    lookup = _quoting()
    guesses = lookup.guess()
    assert not lookup.pays(guesses, 10.0, 45.0)
    lookup.extend([guesses[0], 10, 11, 12])
    assert lookup.guess()


def test_a_guess_that_costs_more_than_it_can_bring_is_not_made() -> None:
    assert not _quoting().pays([13] * MOST, 10.0, 10.0 * (MOST + 1))


@given(st.lists(st.tuples(st.integers(1, MOST), st.integers(0, MOST)), max_size=60))
def test_what_was_accepted_is_never_more_than_what_was_drafted(told: list[tuple[int, int]]) -> None:
    lookup = Lookup()
    for drafted, accepted in told:
        lookup.tell(drafted, min(accepted, drafted))
    assert lookup.accepted <= lookup.drafted
    assert lookup.pays([1], 10.0, 10.0)  # a step that costs no more than one row always pays

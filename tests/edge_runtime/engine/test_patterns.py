"""Patterns are bounded by what they are once their repetitions are written out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.patterns import check_pattern
from edge_runtime.errors import RequestError


def _check(pattern: str) -> None:
    check_pattern(pattern, "#/pattern", "response_format")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "^a+$",
        r"^\{[0-9]{1,9}\}$",
        "[](){}]{3}",
        r"[\]]{2000}",
        "(a|b){1,1000}",
        "a{1000}b{999}",
        r"\(\)",
        "[(]",
        "{}",
        "x{,3}",
    ],
)
def test_a_pattern_within_bounds_passes(pattern: str) -> None:
    _check(pattern)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a{2001}", "larger than"),
        ("a{2001,}", "larger than"),
        ("a{" + "9" * 400 + "}", "larger than"),
        ("(a{50}){50}", "larger than"),
        ("((a{13}b){13}c){13}", "larger than"),
        ("(" * 40 + ")" * 40, "larger than"),
        ("a" * 513, "at most 512"),
        ("(a", "open"),
        ("a)", "not open"),
        ("(?=a)", "look around"),
        (r"(a)\1", "refer back"),
        (r"(?<n>a)\k<n>", "refer back"),
    ],
)
def test_a_pattern_out_of_bounds_is_refused_with_its_place(pattern: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        _check(pattern)
    assert caught.value.message.startswith("#/pattern")
    assert caught.value.param == "response_format"


@given(st.text(alphabet="a([{)]}1,9\\*+?|^$", max_size=40))
def test_any_text_passes_or_is_refused(pattern: str) -> None:
    try:
        _check(pattern)
    except RequestError:
        return


@given(st.integers(1, 60), st.integers(1, 60))
def test_nested_repetitions_count_as_their_product(inner: int, outer: int) -> None:
    pattern = f"(a{{{inner}}}){{{outer}}}"
    assert re.fullmatch(pattern, "a" * inner * outer)
    if inner * outer <= 2000:
        _check(pattern)
    else:
        with pytest.raises(RequestError):
            _check(pattern)

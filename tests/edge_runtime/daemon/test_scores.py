"""Probabilities of choices: what is divided out, what adds up, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.scores import check, probabilities, without_content
from edge_runtime.engine_protocol import Calibration, ScoreMessage, ScoreRequest
from edge_runtime.errors import RequestError

LOGPROBS = st.lists(st.floats(-1000, 0), min_size=1, max_size=64)
RULE = ScoreMessage(role="system", content="Name the trouble.")
NOTE = ScoreMessage(role="user", content="The gland leaks.")


@given(LOGPROBS, st.floats(0.01, 100))
def test_probabilities_add_up_and_keep_the_order(logprobs: list[float], temperature: float) -> None:
    found = probabilities(logprobs, temperature=temperature)
    assert sum(found) == pytest.approx(1.0)
    assert found[logprobs.index(max(logprobs))] == max(found)


def test_a_prior_is_divided_out() -> None:
    likely, prior = [math.log(0.6), math.log(0.4)], [math.log(0.9), math.log(0.1)]
    found = probabilities(likely, prior)
    assert found[1] / found[0] == pytest.approx((0.4 / 0.1) / (0.6 / 0.9))


@given(LOGPROBS)
def test_what_the_model_says_of_nothing_too_is_no_evidence(logprobs: list[float]) -> None:
    assert probabilities(logprobs, logprobs) == pytest.approx([1 / len(logprobs)] * len(logprobs))


def test_the_last_message_after_others_is_what_is_judged() -> None:
    blank = without_content(ScoreRequest(messages=[RULE, NOTE], choices=["a"]))
    assert blank is not None
    assert blank.messages == [RULE, ScoreMessage(role="user", content="N/A")]


@pytest.mark.parametrize(
    "request_",
    [
        ScoreRequest(messages=[NOTE], choices=["a"]),
        ScoreRequest(messages=[NOTE, RULE], choices=["a"]),
        ScoreRequest(prompt="The gland leaks. Trouble:", choices=["a"]),
        ScoreRequest(messages=[RULE, NOTE], choices=["a"], calibration=Calibration(prior=False)),
    ],
)
def test_no_prior_is_guessed_where_it_is_not_known_what_is_judged(request_: ScoreRequest) -> None:
    assert without_content(request_) is None


def test_content_that_is_named_is_what_is_judged() -> None:
    asked = Calibration(content="The gland leaks.")
    blank = without_content(ScoreRequest(prompt="The gland leaks. Trouble:", choices=["a"], calibration=asked))
    assert blank is not None
    assert blank.prompt == "N/A Trouble:"
    blank = without_content(ScoreRequest(messages=[NOTE], choices=["a"], calibration=asked))
    assert blank is not None
    assert blank.messages == [ScoreMessage(role="user", content="N/A")]
    with pytest.raises(RequestError, match="not in the prompt"):
        without_content(ScoreRequest(prompt="Trouble:", choices=["a"], calibration=asked))


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ScoreRequest(choices=["a"]), "prompt"),
        (ScoreRequest(prompt="x", messages=[NOTE], choices=["a"]), "prompt"),
        (ScoreRequest(prompt="x", choices=["a", " "]), "choices[1]"),
        (ScoreRequest(prompt="x", choices=["a", "b", "a"]), "choices[2]"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_its_name(request_: ScoreRequest, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        check(request_)
    assert refused.value.param == param

"""One row of logits to one token, against plain reference sums."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_runtime.engine.messages import Params
from edge_runtime.engine.sampling import Sampler, best, log_softmax
from edge_runtime.errors import EngineError, RequestError

_ROWS = arrays(np.float32, st.integers(1, 60), elements=st.floats(-40, 40, width=32))


def _row(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@given(_ROWS)
def test_temperature_zero_takes_the_largest_logit(row: np.ndarray) -> None:
    assert Sampler(Params(temperature=0), len(row)).choose(row).token == int(row.argmax())


@given(_ROWS, st.integers(1, 70))
def test_best_is_the_head_of_a_stable_sort(row: np.ndarray, count: int) -> None:
    assert best(row, count).tolist() == np.argsort(-row, kind="stable")[:count].tolist()


_PARAMS = st.builds(
    Params,
    temperature=st.floats(0.1, 2),
    seed=st.integers(0, 2**63 - 1),
    top_k=st.integers(0, 10),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.9),
)


@given(_ROWS, _PARAMS)
def test_a_draw_stays_inside_what_top_k_top_p_and_min_p_leave(row: np.ndarray, params: Params) -> None:
    token = Sampler(params, len(row)).choose(row).token
    order = np.argsort(-row.astype(np.float64), kind="stable")[: params.top_k or len(row)]
    chances = np.exp(row[order].astype(np.float64) - row.max())
    chances /= chances.sum()
    place = order.tolist().index(token)
    assert chances[:place].sum() <= params.top_p + 1e-6
    assert chances[place] >= params.min_p * chances[0] - 1e-6


def test_draws_follow_the_softmax_of_the_tempered_logits() -> None:
    row = _row(1.0, 0.0, -1.0)
    params = Params(temperature=0.7, top_k=0, top_p=1.0, min_p=0.0, seed=7)
    sampler = Sampler(params, 3)
    seen = Counter(sampler.choose(row).token for _ in range(6000))
    wanted = np.exp(row / 0.7) / np.exp(row / 0.7).sum()
    assert [seen[token] / 6000 for token in range(3)] == pytest.approx(wanted.tolist(), abs=0.03)


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    row = np.random.default_rng(1).normal(size=500).astype(np.float32)

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Params(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=seed), 500)
        return [sampler.choose(row).token for _ in range(20)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert draw(None) != draw(None)


def test_frequency_and_presence_penalties_make_a_repeated_token_lose() -> None:
    row = _row(1.0, 0.9, 0.0)
    plain = Sampler(Params(), 3)
    assert [plain.choose(row).token for _ in range(3)] == [0, 0, 0]
    presence = Sampler(Params(presence_penalty=0.5), 3)
    assert [presence.choose(row).token for _ in range(3)] == [0, 1, 0]
    frequency = Sampler(Params(frequency_penalty=0.5), 3)
    assert [frequency.choose(row).token for _ in range(4)] == [0, 1, 0, 1]


def test_logit_bias_moves_the_choice_and_leaves_the_reported_probabilities_alone() -> None:
    row = _row(1.0, 0.0)
    choice = Sampler(Params(logit_bias={1: 5.0}, logprobs=2), 2).choose(row)
    assert choice.token == 1
    assert choice.logprob == pytest.approx(float(log_softmax(row)[1]))
    assert [token for token, _ in choice.top] == [0, 1]
    assert row.tolist() == [1.0, 0.0]


@given(_ROWS)
def test_log_probabilities_sum_to_one(row: np.ndarray) -> None:
    assert float(np.exp(log_softmax(row).astype(np.float64)).sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (Params(max_tokens=0), "max_tokens"),
        (Params(max_tokens=-1), "max_tokens"),
        (Params(temperature=-0.1), "temperature"),
        (Params(temperature=float("nan")), "temperature"),
        (Params(top_p=1.5), "top_p"),
        (Params(top_k=-1), "top_k"),
        (Params(min_p=2), "min_p"),
        (Params(logprobs=1000), "logprobs"),
        (Params(logit_bias={9: 1.0}), "logit_bias"),
        (Params(logit_bias={0: float("inf")}), "logit_bias"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(params: Params, name: str) -> None:
    with pytest.raises(RequestError) as error:
        Sampler(params, 4)
    assert error.value.param == name


def test_logits_that_are_no_numbers_are_an_error_and_not_a_token() -> None:
    with pytest.raises(EngineError, match="no numbers"):
        Sampler(Params(), 2).choose(_row(float("nan"), 0.0))


def test_looking_and_masking_and_counting_all_use_up_the_same_numbers() -> None:
    row = np.random.default_rng(2).normal(size=200).astype(np.float32)
    params = Params(temperature=1.0, top_k=0, top_p=1, min_p=0, seed=5)
    plain, often, counted = (Sampler(params, 200) for _ in range(3))
    drawn = [plain.choose(row).token for _ in range(20)]
    for token in drawn:
        assert {often.look(row).token for _ in range(3)} == {token}
        often.look(row, known=row)
        often.count(token)
    assert often.choose(row) == plain.choose(row)
    for token in drawn[:7]:
        counted.count(token)
    assert [counted.choose(row).token for _ in drawn[7:]] == drawn[7:]


def test_what_is_drawn_after_a_refusal_follows_the_softmax_of_what_is_left() -> None:
    row = np.log(np.array([0.8, 0.1, 0.06, 0.04], np.float32))
    left = np.where(np.arange(4) > 0, row, np.float32(-np.inf))
    sampler = Sampler(Params(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=7), 4)
    seen: Counter[int] = Counter()
    for _ in range(6000):
        token = sampler.look(row).token or sampler.look(left, known=row).token
        sampler.count(token)
        seen[token] += 1
    assert [seen[token] / 6000 for token in range(4)] == pytest.approx([0, 0.5, 0.3, 0.2], abs=0.03)

"""The choice among a writer's forms, and the sums behind its loss figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.formats import NOTHING_LOST, Candidate, Lost, judge, workload_ms
from edge_runtime.engine.loss import Sums
from edge_runtime.engine.sampling import log_softmax
from edge_runtime.engine.speed import Speed


def _speed(factor: float) -> Speed:
    return Speed(prefill=300 * factor, decode=90 * factor, decode_8=200 * factor)


def _lost(mean_kl: float) -> Lost:
    return Lost(mean_kl=mean_kl, same_top=0.9, perplexity_change=0.01, tokens=4096, origin="measured")


_SOURCE = Candidate(format="Q4_1", source=True, speed=_speed(1), lost=NOTHING_LOST)


def _verdicts(*others: Candidate, limit: float = 0.02) -> dict[str, str]:
    return {row.format: row.verdict for row in judge([_SOURCE, *others], limit=limit)}


def test_the_fastest_under_the_limit_is_chosen_and_a_faster_one_over_it_refused() -> None:
    slow = Candidate(format="Q8_0", speed=_speed(1.5), lost=_lost(0.006))
    fast = Candidate(format="Q4_0", speed=_speed(3), lost=_lost(0.34))
    assert _verdicts(slow, fast) == {"Q4_1": "allowed", "Q8_0": "chosen", "Q4_0": "refused"}
    assert _verdicts(slow, fast, limit=0.5) == {"Q4_1": "allowed", "Q8_0": "allowed", "Q4_0": "chosen"}


def test_a_gain_within_the_noise_leaves_the_source_in_place() -> None:
    assert _verdicts(Candidate(format="Q8_0", speed=_speed(1.02), lost=_lost(0.001)))["Q4_1"] == "chosen"


def test_a_form_that_could_not_be_made_or_measured_is_never_chosen() -> None:
    broken = Candidate(format="Q8_0", problem="the disk is full")
    assert _verdicts(broken) == {"Q4_1": "chosen", "Q8_0": "failed"}
    assert _verdicts(Candidate(format="Q8_0", speed=_speed(9), lost=_lost(float("nan"))))["Q8_0"] == "refused"


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 1)), max_size=4), st.floats(0, 1))
def test_exactly_one_is_chosen_it_is_allowed_and_no_allowed_one_is_much_faster(
    others: list[tuple[float, float]], limit: float
) -> None:
    made = [Candidate(format=f"F{i}", speed=_speed(speed), lost=_lost(kl)) for i, (speed, kl) in enumerate(others)]
    rows = judge([_SOURCE, *made], limit=limit)
    (chosen,) = (row for row in rows if row.verdict == "chosen")
    assert chosen.lost is not None
    assert chosen.lost.mean_kl <= limit
    for row in rows:
        if row.verdict == "allowed":
            assert (row.workload_ms or 0) >= 0.96 * (chosen.workload_ms or 0)


def test_the_workload_is_a_prompt_and_an_answer() -> None:
    assert workload_ms(Speed(prefill=600, decode=64, decode_8=1)) == pytest.approx(2000)


def test_loss_sums_are_those_of_the_definitions() -> None:
    numbers = np.random.default_rng(3)
    source, other = (log_softmax(numbers.normal(size=(6, 11)).astype(np.float32)) for _ in range(2))
    following = numbers.integers(0, 11, 6).astype(np.int32)
    sums = Sums()
    sums.add(source[:4], other[:4], following[:4])
    sums.add(source[4:], other[4:], following[4:5])  # the last position of a window has no next token
    found = sums.found(Path("x"))
    p, q = source.astype(np.float64), other.astype(np.float64)
    assert found.tokens == 6
    assert found.mean_kl == pytest.approx((np.exp(p) * (p - q)).sum() / 6, rel=1e-4)
    assert found.same_top == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    places = np.arange(5)
    change = np.exp((p[places, following[:5]] - q[places, following[:5]]).mean()) - 1
    assert found.perplexity_change == pytest.approx(change, rel=1e-4)


def test_a_file_compared_with_itself_loses_nothing() -> None:
    rows = log_softmax(np.random.default_rng(4).normal(size=(5, 7)).astype(np.float32))
    sums = Sums()
    sums.add(rows, rows, np.zeros(5, np.int32))
    found = sums.found(Path("x"))
    assert (found.mean_kl, found.same_top, found.perplexity_change) == (0.0, 1.0, 0.0)

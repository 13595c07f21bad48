"""What the metrics are told of one text."""

from __future__ import annotations

import time

from edge_runtime.daemon.metrics import Metrics
from edge_runtime.daemon.pace import Pace
from edge_runtime.engine.messages import Done, Scored, Token

ASK = '{class="interactive",route="ask"}'


def test_a_text_is_counted_by_its_tokens_and_what_was_read_by_where_it_was() -> None:
    metrics = Metrics()
    pace = Pace(metrics, priority="interactive", route="ask", arrived=time.monotonic())
    for count in (1, 2, 4, 4):
        pace.step(Token(id="t", text="x", tokens=count))
    pace.step(
        Done(
            id="t",
            reason="stop",
            prompt_tokens=10,
            completion_tokens=5,
            cached_tokens=7,
            tier="memory",
            prefill_ms=0,
            decode_ms=0,
            drafted=3,
            accepted=2,
        )
    )
    lines = metrics.render().splitlines()
    assert f"edge_time_to_first_token_seconds_count{ASK} 1" in lines
    assert f"edge_inter_token_seconds_count{ASK} 2" in lines
    assert "edge_prefilled_tokens_total 3" in lines
    assert 'edge_cached_tokens_total{tier="memory"} 7' in lines
    assert 'edge_drafted_tokens_total{right="yes"} 2' in lines
    assert 'edge_drafted_tokens_total{right="no"} 1' in lines
    assert (pace.tokens, metrics.recent.written) == (5, 4)
    assert metrics.recent.latency()["interactive"].between_p95_ms is not None
    assert metrics.recent.latency(time.monotonic() + 61)["interactive"].between_p95_ms is None


def test_scored_choices_count_as_reading_alone() -> None:
    metrics = Metrics()
    pace = Pace(metrics, priority="batch", route="score", arrived=time.monotonic())
    pace.read(Scored(id="s", logprobs=[-1.0], tokens=[1], prompt_tokens=8, cached_tokens=2, tier="live"))
    lines = metrics.render().splitlines()
    assert "edge_prefilled_tokens_total 6" in lines
    assert 'edge_cached_tokens_total{tier="live"} 2' in lines
    assert not [line for line in lines if line.startswith("edge_time_to_first_token_seconds_count")]

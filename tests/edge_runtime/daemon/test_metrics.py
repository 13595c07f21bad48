"""Counters, gauges and histograms, and the text that Prometheus reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.daemon.metrics import Counter, Gauge, Histogram, Metrics, Recent
from edge_runtime.engine_protocol import Latency


def test_counters_render_one_line_for_each_set_of_labels() -> None:
    counter = Counter("things_total", "Things.")
    counter.add(kind="a")
    counter.add(2, kind="a")
    counter.add(kind='b"\\\n')
    assert counter.lines() == [
        "# HELP things_total Things.",
        "# TYPE things_total counter",
        'things_total{kind="a"} 3',
        'things_total{kind="b\\"\\\\\\n"} 1',
    ]


@given(st.lists(st.floats(min_value=0, max_value=1000), min_size=1))
def test_a_histogram_s_buckets_never_fall_and_end_at_the_count(values: list[float]) -> None:
    histogram = Histogram("seconds", "Seconds.")
    for value in values:
        histogram.observe(value, route="x")
    lines = histogram.lines()[2:]
    buckets = [int(line.rsplit(" ", 1)[1]) for line in lines if "_bucket" in line]
    assert buckets == sorted(buckets)
    assert buckets[-1] == len(values) == int(lines[-1].rsplit(" ", 1)[1])
    for bound, count in zip(histogram.bounds, buckets, strict=False):
        assert count == sum(value <= bound for value in values)


def test_gauges_are_read_when_they_are_shown() -> None:
    state = {"now": 1.0}
    gauge = Gauge("now", "Now.", lambda: {(): state["now"]})
    state["now"] = 2.5
    assert gauge.lines()[-1] == "now 2.5"


def test_an_unused_registry_still_names_what_it_counts() -> None:
    text = Metrics().render()
    assert "# TYPE edge_requests_total counter" in text
    assert text.endswith("\n")


def test_large_and_small_values_keep_every_digit() -> None:
    counter = Counter("tokens_total", "Tokens.")
    counter.add(1_234_567)
    assert counter.lines()[-1] == "tokens_total 1234567"
    counter.add(0.125)
    assert counter.lines()[-1] == "tokens_total 1234567.125"
    assert Gauge("at", "At.", lambda: {(): 1_795_448_453.123}).lines()[-1] == "at 1795448453.123"
    histogram = Histogram("seconds", "Seconds.")
    histogram.observe(1_234_567.5)
    assert histogram.lines()[-2:] == ["seconds_sum 1234567.5", "seconds_count 1"]


def test_the_latency_of_now_is_that_of_the_last_minute_alone() -> None:
    recent = Recent()
    recent.first("batch").extend([(0.0, 9.0), (50.0, 0.2), (55.0, 0.1)])
    recent.between("batch").append((10.0, 0.03))
    nothing = Latency(first_p50_ms=None, first_p95_ms=None, between_p50_ms=None, between_p95_ms=None)
    assert recent.latency(60.0) == {
        "batch": Latency(first_p50_ms=200.0, first_p95_ms=9000.0, between_p50_ms=30.0, between_p95_ms=30.0)
    }
    assert recent.latency(71.0) == {
        "batch": Latency(first_p50_ms=100.0, first_p95_ms=200.0, between_p50_ms=None, between_p95_ms=None)
    }
    assert recent.latency(200.0) == {"batch": nothing}

"""Counters, gauges and histograms, and their text form (Prometheus exposition format 0.0.4)."""

from __future__ import annotations

import bisect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_runtime.engine_protocol import Latency

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BETWEEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_RECENT, _RECENT_SECONDS = 256, 60.0  # observations by class, and their age, that the quantiles of now are taken of
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
Labels = tuple[tuple[str, str], ...]
Observed = deque[tuple[float, float]]  # when, by the monotonic clock, and how many seconds


def _labels(labels: Labels) -> str:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}" if labels else ""


def _number(value: float) -> str:
    """Every digit that tells it from its neighbours; whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(slots=True)
class Counter:
    name: str
    help: str
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, amount: float = 1.0, /, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        self.values[key] = self.values.get(key, 0.0) + amount

    def lines(self) -> list[str]:
        head = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} counter"]
        return head + [f"{self.name}{_labels(key)} {_number(value)}" for key, value in sorted(self.values.items())]


@dataclass(slots=True)
class Gauge:
    """Read when it is asked for: ``read`` gives one value for each set of labels."""

    name: str
    help: str
    read: Callable[[], Mapping[Labels, float]]

    def lines(self) -> list[str]:
        head = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} gauge"]
        return head + [f"{self.name}{_labels(key)} {_number(value)}" for key, value in sorted(self.read().items())]


@dataclass(slots=True)
class Series:
    """The observations of a histogram under one set of labels."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Histogram:
    name: str
    help: str
    bounds: tuple[float, ...] = _SECONDS
    every: dict[Labels, Series] = field(default_factory=dict)

    def series(self, **labels: str) -> Series:
        """For who observes often under the same labels."""
        key = tuple(sorted(labels.items()))
        if key not in self.every:
            self.every[key] = Series(self.bounds, [0] * (len(self.bounds) + 1))
        return self.every[key]

    def observe(self, value: float, /, **labels: str) -> None:
        self.series(**labels).observe(value)

    def lines(self) -> list[str]:
        out = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} histogram"]
        for key, series in sorted(self.every.items()):
            running = 0
            for bound, count in zip((*self.bounds, float("inf")), series.counts, strict=True):
                running += count
                edge = "+Inf" if bound == float("inf") else _number(bound)
                out.append(f"{self.name}_bucket{_labels((*key, ('le', edge)))} {running}")
            out.append(f"{self.name}_sum{_labels(key)} {_number(series.total)}")
            out.append(f"{self.name}_count{_labels(key)} {running}")
        return out


class Recent:
    """The latest observations of each class, for a person who watches; Prometheus works out its own.

    Whoever observes appends and no more: what is too old is left out when somebody reads.
    """

    def __init__(self) -> None:
        self.written = 0  # tokens
        self._first: dict[str, Observed] = {}
        self._between: dict[str, Observed] = {}

    def first(self, priority: str) -> Observed:
        """Seconds to first tokens, to be added to."""
        return self._first.setdefault(priority, deque(maxlen=_RECENT))

    def between(self, priority: str) -> Observed:
        """Seconds between tokens, to be added to."""
        return self._between.setdefault(priority, deque(maxlen=_RECENT))

    def latency(self, now: float | None = None) -> dict[str, Latency]:
        """Of the minute before ``now``, by the monotonic clock (None: what it says)."""
        since = (time.monotonic() if now is None else now) - _RECENT_SECONDS
        found: dict[str, Latency] = {}
        for name in sorted({*self._first, *self._between}):
            first = _later(self._first.get(name, ()), since)
            between = _later(self._between.get(name, ()), since)
            found[name] = Latency(
                first_p50_ms=_quantile(first, 0.5),
                first_p95_ms=_quantile(first, 0.95),
                between_p50_ms=_quantile(between, 0.5),
                between_p95_ms=_quantile(between, 0.95),
            )
        return found


def _later(observed: Iterable[tuple[float, float]], since: float) -> list[float]:
    """The seconds observed since then, the fewest first."""
    return sorted(seconds for at, seconds in observed if at >= since)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that ``share`` of them do not pass, in milliseconds."""
    return round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 2) if ordered else None


class Metrics:
    """What ``/metrics`` shows; gauges are added by whoever holds what they read."""

    def __init__(self) -> None:
        self.requests = Counter("edge_requests_total", "Requests by route and status.")
        self.refusals = Counter("edge_refusals_total", "Requests that were refused or failed, by error code.")
        self.seconds = Histogram("edge_request_seconds", "Time from a request's head to the end of its reply.")
        self.first_token = Histogram(
            "edge_time_to_first_token_seconds", "From a request's arrival to a text's first token.", _FIRST_SECONDS
        )
        self.between_tokens = Histogram(
            "edge_inter_token_seconds", "From a token to the next one as the client gets them.", _BETWEEN_SECONDS
        )
        self.tokens = Counter("edge_tokens_total", "Tokens read and written by the writer.")
        self.prefilled = Counter("edge_prefilled_tokens_total", "Tokens of prompts that were evaluated.")
        self.cached = Counter("edge_cached_tokens_total", "Tokens of prompts that were not, by where they were kept.")
        self.drafted = Counter("edge_drafted_tokens_total", "Tokens that speculation guessed, by whether it was right.")
        self.refused = Counter("edge_admission_refusals_total", "Requests not admitted, by reason and class.")
        self.recent = Recent()
        self.gauges: list[Gauge] = []

    def gauge(self, name: str, text: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        self.gauges.append(Gauge(name, text, read))

    def render(self) -> str:
        every: tuple[Counter | Gauge | Histogram, ...] = (
            self.requests,
            self.refusals,
            self.seconds,
            self.first_token,
            self.between_tokens,
            self.tokens,
            self.prefilled,
            self.cached,
            self.drafted,
            self.refused,
            *self.gauges,
        )
        return "\n".join(line for metric in every for line in metric.lines()) + "\n"

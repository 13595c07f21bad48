"""Counters, gauges and histograms, and their text form (Prometheus exposition format 0.0.4)."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
Labels = tuple[tuple[str, str], ...]


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

    def add(self, amount: float = 1.0, **labels: str) -> None:
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
class _Spread:
    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Histogram:
    name: str
    help: str
    bounds: tuple[float, ...] = _SECONDS
    spreads: dict[Labels, _Spread] = field(default_factory=dict)

    def observe(self, value: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        spread = self.spreads.setdefault(key, _Spread([0] * (len(self.bounds) + 1)))
        spread.counts[bisect.bisect_left(self.bounds, value)] += 1
        spread.total += value

    def lines(self) -> list[str]:
        out = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} histogram"]
        for key, spread in sorted(self.spreads.items()):
            running = 0
            for bound, count in zip((*self.bounds, float("inf")), spread.counts, strict=True):
                running += count
                edge = "+Inf" if bound == float("inf") else _number(bound)
                out.append(f"{self.name}_bucket{_labels((*key, ('le', edge)))} {running}")
            out.append(f"{self.name}_sum{_labels(key)} {_number(spread.total)}")
            out.append(f"{self.name}_count{_labels(key)} {running}")
        return out


class Metrics:
    """What ``/metrics`` shows; gauges are added by whoever holds what they read."""

    def __init__(self) -> None:
        self.requests = Counter("edge_requests_total", "Requests by route and status.")
        self.refusals = Counter("edge_refusals_total", "Requests that were refused or failed, by error code.")
        self.seconds = Histogram("edge_request_seconds", "Time from a request's head to the end of its reply.")
        self.first_token = Histogram("edge_first_token_seconds", "Time to the first generated token.")
        self.tokens = Counter("edge_tokens_total", "Tokens read and written by the writer.")
        self.gauges: list[Gauge] = []

    def gauge(self, name: str, text: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        self.gauges.append(Gauge(name, text, read))

    def render(self) -> str:
        every: tuple[Counter | Gauge | Histogram, ...] = (
            self.requests,
            self.refusals,
            self.seconds,
            self.first_token,
            self.tokens,
            *self.gauges,
        )
        return "\n".join(line for metric in every for line in metric.lines()) + "\n"

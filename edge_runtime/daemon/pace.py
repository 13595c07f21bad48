"""What the metrics learn of one text: when its first token came, how fast the others, and what reading cost."""

from __future__ import annotations

import time

from edge_runtime.daemon.metrics import Metrics, Observed, Series
from edge_runtime.engine.messages import Class, Done, Scored, Token


class Pace:
    """Of one text, for a request that arrived at ``arrived`` (of the monotonic clock)."""

    def __init__(self, metrics: Metrics, *, priority: Class, route: str, arrived: float) -> None:
        self.tokens = 0  # that were written
        self._metrics = metrics
        self._priority = priority
        self._labels = {"class": priority, "route": route}
        self._latest = arrived
        self._series: Series  # from the first token on, like the next
        self._between: Observed

    def step(self, step: Token | Done) -> None:
        if isinstance(step, Token):
            self._write(step)
            return
        self.tokens = step.completion_tokens
        self.read(step)
        if step.drafted:
            self._metrics.drafted.add(step.accepted, right="yes")
            self._metrics.drafted.add(step.drafted - step.accepted, right="no")

    def read(self, done: Done | Scored) -> None:
        """Which part of the prompt was evaluated, and which was there."""
        if done.cached_tokens:
            self._metrics.cached.add(done.cached_tokens, tier=done.tier)
        self._metrics.prefilled.add(done.prompt_tokens - done.cached_tokens)

    def _write(self, token: Token) -> None:
        now, metrics, fresh = time.monotonic(), self._metrics, token.tokens - self.tokens
        if self.tokens == 0:
            metrics.first_token.observe(now - self._latest, **self._labels)
            metrics.recent.first(self._priority).append((now, now - self._latest))
            # Kept for the tokens to come: looking them up by their labels would take longer than the rest.
            self._series = metrics.between_tokens.series(**self._labels)
            self._between = metrics.recent.between(self._priority)
        elif fresh > 0:
            each = (now - self._latest) / fresh
            self._series.observe(each)
            self._between.append((now, each))
        if fresh > 0:
            metrics.recent.written += fresh
            self.tokens = token.tokens
        self._latest = now

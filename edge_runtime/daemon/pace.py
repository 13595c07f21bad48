"""What the metrics learn of one text: when its first token came, how fast the others, and what reading cost."""

from __future__ import annotations

import time

from edge_runtime.daemon.metrics import Metrics
from edge_runtime.engine.messages import Class, Done, Scored, Token


class Pace:
    """Of one text, for a request that arrived at ``arrived`` (of the monotonic clock)."""

    def __init__(self, metrics: Metrics, *, priority: Class, route: str, arrived: float) -> None:
        self.tokens = 0  # that were written
        self._metrics = metrics
        self._priority = priority
        self._labels = {"class": priority, "route": route}
        self._latest = arrived

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
        now, metrics = time.monotonic(), self._metrics
        if self.tokens == 0:
            metrics.first_token.observe(now - self._latest, **self._labels)
            metrics.recent.first(self._priority, now - self._latest)
        elif token.tokens > self.tokens:
            each = (now - self._latest) / (token.tokens - self.tokens)
            metrics.between_tokens.observe(each, **self._labels)
            metrics.recent.between(self._priority, each)
        metrics.recent.written += max(token.tokens - self.tokens, 0)
        self._latest, self.tokens = now, max(token.tokens, self.tokens)

"""Which form of a writer is best on this machine: the fastest whose loss stays under a limit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from edge_runtime.engine.speed import Speed

# The workload that decides: a question with its passages, and an answer of some sentences.
PROMPT_TOKENS = 600
ANSWER_TOKENS = 64
MEAN_KL_LIMIT = 0.02  # nats per token
# A made file must beat the source by more than the measurement's own noise: it costs disk, and some loss.
WORTHWHILE = 0.03

Verdict = Literal["chosen", "allowed", "refused", "failed"]


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Loss against the source file; ``origin`` says when it was measured."""

    mean_kl: float  # nats per token
    same_top: float  # 0..1
    perplexity_change: float  # 0.01 is +1 %
    tokens: int
    origin: Literal["source", "recorded", "measured"]


NOTHING_LOST = Lost(mean_kl=0.0, same_top=1.0, perplexity_change=0.0, tokens=0, origin="source")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One form of the model, and what is known of it."""

    format: str
    source: bool = False
    size: int | None = None  # bytes
    sha256: str | None = None
    speed: Speed | None = None
    lost: Lost | None = None
    problem: str = ""  # why it could not be made or measured


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    format: str
    source: bool
    verdict: Verdict
    reason: str
    size: int | None
    sha256: str | None
    speed: Speed | None
    workload_ms: float | None  # PROMPT_TOKENS of prompt and ANSWER_TOKENS of answer, alone
    lost: Lost | None


def workload_ms(speed: Speed) -> float:
    return 1e3 * (PROMPT_TOKENS / speed.prefill + ANSWER_TOKENS / speed.decode)


def over(lost: Lost, limit: float) -> bool:
    """Whether this loss is too much; what is not a number is."""
    return not lost.mean_kl <= limit


def judge(candidates: Sequence[Candidate], *, limit: float = MEAN_KL_LIMIT) -> list[Row]:
    """A verdict on each candidate, of which one (the source) must have been measured; exactly one is chosen."""
    allowed = [one for one in candidates if one.speed and one.lost and not one.problem and not over(one.lost, limit)]
    times = {one.format: workload_ms(one.speed) for one in allowed if one.speed}
    source = next(one for one in candidates if one.source)
    best = min(allowed, key=lambda one: times[one.format])
    if times[best.format] > (1 - WORTHWHILE) * times[source.format]:
        best = source
    return [_row(one, chosen=one is best, limit=limit) for one in candidates]


def _row(one: Candidate, *, chosen: bool, limit: float) -> Row:
    verdict, reason = _verdict(one, chosen=chosen, limit=limit)
    return Row(
        format=one.format,
        source=one.source,
        verdict=verdict,
        reason=reason,
        size=one.size,
        sha256=one.sha256,
        speed=one.speed,
        workload_ms=workload_ms(one.speed) if one.speed else None,
        lost=one.lost,
    )


def _verdict(one: Candidate, *, chosen: bool, limit: float) -> tuple[Verdict, str]:
    if chosen:
        return "chosen", "nothing allowed is faster by 3 %" if one.source else "the fastest that is allowed"
    if one.problem:
        return "failed", one.problem
    if one.lost is not None and over(one.lost, limit):
        return "refused", f"mean KL {one.lost.mean_kl:.3f} is over {limit:g}"
    return "allowed", "not the fastest"

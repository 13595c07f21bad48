"""The bodies of the engine's own routes: scores of choices, and what the engines are doing now.

Data alone, as :mod:`edge_runtime.protocol`, whose conventions hold here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_runtime.protocol import EdgeReport, Own, RunningRequest, Text, Urgency, Wire

# ---- /edge/v1/score ------------------------------------------------------------------------------------------------

Choice = Annotated[str, Meta(min_length=1, max_length=500)]


class ScoreMessage(Own, frozen=True, kw_only=True):
    role: Literal["system", "user", "assistant"]
    content: Text


class Calibration(Own, frozen=True, kw_only=True):
    """How scores become probabilities; see ``edge_runtime/daemon/scores.py`` for the formula and its source."""

    prior: Annotated[
        bool, Meta(description="Divide by what the model says of each choice where there is nothing to judge.")
    ] = True
    content: Annotated[
        Text | None,
        Meta(description="The part of the prompt that is judged. Null: the last user message, after others."),
    ] = None
    temperature: Annotated[float, Meta(gt=0, le=100)] = 1.0


class ScoreRequest(Own, frozen=True, kw_only=True):
    """``POST /edge/v1/score``: give ``prompt`` or ``messages``; the choices are what may follow."""

    model: Annotated[str, Meta(min_length=1)] = "default"
    prompt: Text | None = None
    messages: Annotated[list[ScoreMessage], Meta(min_length=1, max_length=1000)] | None = None
    choices: Annotated[list[Choice], Meta(min_length=1, max_length=64)]
    calibration: Calibration | None = None
    edge: Urgency | None = None


class ScoredChoice(Wire, frozen=True, kw_only=True):
    text: str
    logprob: float  # natural logarithm, summed over its tokens
    probability: float  # among the choices; together they are 1
    tokens: int


class ScoreReply(Wire, frozen=True, kw_only=True):
    id: str
    model: str
    choices: list[ScoredChoice]  # in the order of the request
    best: int  # index of the most probable one
    calibrated: bool  # whether a prior was divided out
    edge: EdgeReport


# ---- /edge/v1/engine -----------------------------------------------------------------------------------------------


class EngineState(Wire, frozen=True, kw_only=True):
    """One engine as it is now; zeros where it has not said anything yet."""

    model: str
    state: Literal["starting", "ready", "failed", "stopped"]
    waiting: dict[str, int]  # texts by class that have no token yet
    running: dict[str, int]
    parked: int
    cells_used: int
    cells_total: int
    cache_bytes: int  # prefixes in host memory
    reused: dict[str, int]  # prompt tokens that needed no evaluation, by tier
    prefilled: int  # prompt tokens that did
    threads: int
    prefill_ms: float  # of one more prompt token
    step_ms: float  # of one more token for every running text
    resident: int  # bytes


class Latency(Wire, frozen=True, kw_only=True):
    """Of the latest texts of one class, in milliseconds; null where there were none for a minute."""

    first_p50_ms: float | None
    first_p95_ms: float | None
    between_p50_ms: float | None
    between_p95_ms: float | None


class EngineReport(Wire, frozen=True, kw_only=True):
    """``GET /edge/v1/engine``: cheap enough to be asked twice a second."""

    at: float  # seconds, monotonic
    engines: list[EngineState]
    latency: dict[str, Latency]  # by class
    written: int  # tokens since the start
    refused: dict[str, int]  # by reason, since the start
    resident: int  # bytes of all processes; 0: not known
    budget: int  # bytes; 0: none
    requests: list[RunningRequest]  # the peer's own; the owner sees everybody's

"""The bodies of ``/edge/v1/models`` on the socket, as :mod:`edge_runtime.protocol` has the others."""

from __future__ import annotations

from typing import Literal

from edge_runtime.protocol import Wire


class ModelState(Wire, frozen=True, kw_only=True):
    """One installed writer, and whether it is in memory."""

    name: str
    state: Literal["unloaded", "starting", "ready", "failed", "stopped"]
    default: bool  # models.writer: always there, and what a request gets that names no other
    pinned: bool  # stays once it is loaded
    active: int  # requests that it serves, or that wait for it
    idle_s: float | None  # since its last request; null: it is not loaded, or has some
    memory_bytes: int  # that it takes, or would take
    fits: bool  # it is loaded, or could be now: idle ones would leave for it
    adapters: list[str]


class ModelStates(Wire, frozen=True, kw_only=True):
    models: list[ModelState]
    budget: int  # bytes for all of them together

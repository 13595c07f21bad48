"""What a prefix that was read before is worth: time to first token, cold, warm, after a restart, and eight at once."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.answer import installed
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.load import Told, complete, complete_all, completion
from benchmarks.stage import Outcome, Row, Stage, idle, metric, middle

PREFIX = 1000  # tokens
SUFFIX = 20
CLIENTS = 8
WARM_BAR = 1 / 20
RESTART_BAR = 1 / 10
SMALL_WARM_MS = 100.0
CHUNK = 128  # tokens: the largest piece of a prompt that the engine reads in one step
_AT_REST_S = 1.5


async def _first(box: Box, prompt: str) -> Told:
    told = await complete(box.socket, completion(prompt, 2))
    if told.error:
        raise RuntimeError(f"a prompt of {PREFIX + SUFFIX} tokens failed: {told.error}")
    await idle(box)
    return told


def _suffix(stage: Stage, writer: str) -> str:
    return stage.text(SUFFIX, writer=writer, start="\n\nNow then")


async def _first_of(stage: Stage, writer: str) -> dict[str, Any]:
    """Seconds to first token of one writer, by how warm the prefix was, and where it was found."""
    count = 2 if stage.quick else 3
    seen: dict[str, list[Told]] = {"cold": [], "warm": [], "restart": []}
    with stage.box(writer=writer) as box:
        await _first(box, stage.text(SUFFIX, writer=writer))
        prefixes = [stage.text(PREFIX, writer=writer) for _ in range(count)]
        for prefix in prefixes:
            seen["cold"].append(await _first(box, prefix + _suffix(stage, writer)))
            for _ in range(count):
                seen["warm"].append(await _first(box, prefix + _suffix(stage, writer)))
        await asyncio.sleep(_AT_REST_S)
        box.restart()
        await _first(box, stage.text(SUFFIX, writer=writer))
        for prefix in prefixes:
            seen["restart"].append(await _first(box, prefix + _suffix(stage, writer)))
    found: dict[str, Any] = {name: middle([one.first_s for one in told]) for name, told in seen.items()}
    found["all_s"] = {name: [one.first_s for one in told] for name, told in seen.items()}
    found["cache"] = {name: [one.cache for one in told] for name, told in seen.items()}
    return found


async def first_token(stage: Stage) -> Outcome:
    """A 1,000-token prefix with a new suffix of 20 tokens, with the chosen writer and with the small one."""
    outcome = Outcome()
    for writer in installed((stage.writer, SMALL_WRITER)):
        found = await _first_of(stage, writer)
        outcome.figures[writer] = found
        cold, warm, restart = found["cold"], found["warm"], found["restart"]
        note = f" ({warm * 1e3:.0f} of {cold * 1e3:.0f} ms)"
        outcome.rows.append(Row.most(f"first token, warm / cold, {writer}", warm / cold, WARM_BAR, note=note))
        note = f" ({restart * 1e3:.0f} ms)"
        outcome.rows.append(
            Row.most(f"first token, restarted / cold, {writer}", restart / cold, RESTART_BAR, note=note)
        )
        if writer == SMALL_WRITER:
            outcome.rows.append(Row.most("first token, warm, small writer", warm * 1e3, SMALL_WARM_MS, " ms"))
    return outcome


async def together(stage: Stage) -> Outcome:
    """Eight clients send one 1,000-token prefix, each with its own suffix, at once."""
    with stage.box() as box:
        await _first(box, stage.text(SUFFIX))
        prefix = stage.text(PREFIX)
        prompts = [prefix + _suffix(stage, stage.writer) for _ in range(CLIENTS)]
        before = await metric(box, "edge_engine_prefilled_tokens")
        told = await complete_all(box.socket, [completion(prompt, 8) for prompt in prompts])
        await idle(box)
        counted = await metric(box, "edge_engine_prefilled_tokens") - before
    errors = [one.error for one in told if one.error]
    read = sum(one.prompt_tokens - one.cache.get("hit_tokens", 0) for one in told)
    bar = PREFIX + CLIENTS * (SUFFIX + CHUNK)
    row = Row.most(
        "8 clients, one prefix: tokens read", counted or read, bar, f" (of {sum(o.prompt_tokens for o in told)})"
    )
    figures = {
        "by_metric": counted,
        "by_usage": read,
        "first_s": [one.first_s for one in told],
        "cache": [one.cache for one in told],
        "errors": errors,
    }
    return Outcome([Row(row.name, row.bar, row.figure, bool(row.holds) and not errors)], figures)

"""Too many requests, clients that go away, an engine that is killed: what each costs the others, and for how long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.box import Box
from benchmarks.load import Exchange, Told, complete, complete_all, completion, get
from benchmarks.stage import Outcome, Row, Stage, idle, middle

PROMPT = 64  # tokens
FLOOD = 10  # times the rate that the box serves
REFUSAL_BAR_MS = 10.0
CANCEL_BAR_MS = 100.0
_REFUSED = (429, 503)
_REST_NS = 5_000_000  # an engine that used less than this of ``_REST_S`` is doing nothing
_REST_S = 0.08
_POLL_S = 0.005


# ---- ten times too many --------------------------------------------------------------------------------------------


async def _served(box: Box, prompt: str, seconds: float) -> float:
    """Requests a second that sixteen clients get done, each asking again when it has its answer."""
    done = 0
    began = time.perf_counter()

    async def ask(client: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            told = await complete(box.socket, completion(f"{client} {done} {prompt}", 16))
            done += not told.error

    await asyncio.gather(*(ask(client) for client in range(16)))
    return done / (time.perf_counter() - began)


async def overload(stage: Stage) -> Outcome:
    """Ten times the rate that was just measured: what is refused, how fast, and what becomes of what is admitted."""
    with stage.box() as box:
        prompt = stage.text(32)
        rate = await _served(box, prompt, 4.0 if stage.quick else 8.0)
        tasks = []
        began = time.perf_counter()
        for number in range(int(FLOOD * rate * (10 if stage.quick else 60))):
            await asyncio.sleep(max(0.0, began + number / (FLOOD * rate) - time.perf_counter()))
            tasks.append(asyncio.create_task(complete(box.socket, completion(f"{number} {prompt}", 16), 180.0)))
        sent_s = time.perf_counter() - began
        told = await asyncio.gather(*tasks, return_exceptions=True)
    unreached = [str(one) for one in told if isinstance(one, BaseException)]
    heard = [one for one in told if isinstance(one, Told)]
    refused = [one for one in heard if one.status in _REFUSED]
    admitted = [one for one in heard if one.status not in _REFUSED]
    failed = Counter(one.error for one in admitted if one.error or one.finish is None)
    advised = [float(after) for one in refused if (after := one.header("retry-after"))]
    p99 = float(np.quantile([one.ended - one.sent for one in refused], 0.99)) * 1e3 if refused else float("inf")
    note = f" ({len(refused)} of {len(told)} at {len(told) / sent_s:.1f}/s)"
    rows = [
        Row.most("10 x overload: refusal, p99", p99, REFUSAL_BAR_MS, " ms", note),
        Row.most("10 x overload: refusals without Retry-After", len(refused) - len(advised), 0),
        Row.most(
            "10 x overload: admitted that failed", sum(failed.values()) + len(unreached), 0, note=f" of {len(admitted)}"
        ),
    ]
    found: dict[str, Any] = {
        "served_per_s": rate,
        "refused": len(refused),
        "admitted": len(admitted),
        "refusal_p99_ms": p99,
    }
    found |= {"failed": dict(failed), "unreached": unreached[:5]}
    found["retry_after_s"] = [min(advised), max(advised)] if advised else None
    return Outcome(rows, found)


# ---- clients that go away ------------------------------------------------------------------------------------------


def _worked_ns(pid: int) -> int:
    """Nanoseconds on a core of all threads of ``pid`` (proc(5), schedstat)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def _free_after(pid: int, since: float) -> float:
    """Seconds from ``since`` until the engine does nothing any more; infinite where it goes on for ten."""
    seen = [(time.perf_counter(), _worked_ns(pid))]
    while seen[-1][0] - since < 10.0:
        await asyncio.sleep(_POLL_S)
        now, worked = time.perf_counter(), _worked_ns(pid)
        seen.append((now, worked))
        while now - seen[0][0] > _REST_S:
            at, before = seen.pop(0)
            if worked - before < _REST_NS:
                return max(0.0, at - since)
    return float("inf")


async def cancel(stage: Stage) -> Outcome:
    """A client leaves while 2,000 tokens are read for it, and while it is written to."""
    freed: dict[str, list[float]] = {"prefill": [], "decode": []}
    next_s: dict[str, list[float]] = {"prefill": [], "decode": []}
    with stage.box() as box:
        alone = []
        for _ in range(3):
            alone.append((await complete(box.socket, completion(stage.text(20), 2))).first_s)
            await idle(box)
        pid = box.engine()
        for turn in range(2 if stage.quick else 6):
            for kind, tokens in (("prefill", 2000), ("decode", PROMPT)):
                exchange = await Exchange.open(box.socket, "/v1/completions", completion(stage.text(tokens), 1000))
                if kind == "decode":
                    await exchange.begun(16)
                else:
                    await asyncio.sleep(0.4 + 0.05 * turn)
                left = exchange.cancel()
                if turn % 2:
                    told = await complete(box.socket, completion(stage.text(20), 2))
                    next_s[kind].append(told.first_s)
                else:
                    freed[kind].append(await _free_after(pid, left))
                await idle(box)
    rows = [
        Row.most(f"client leaves in {kind}: engine free after", max(freed[kind]) * 1e3, CANCEL_BAR_MS, " ms")
        for kind in freed
    ]
    return Outcome(rows, {"freed_s": freed, "next_first_token_s": next_s, "first_token_alone_s": alone})


# ---- an engine that is killed --------------------------------------------------------------------------------------


async def _kill(box: Box) -> tuple[float, float]:
    """Kill the engine; when that was, and seconds until the box is ready with another one."""
    old = box.engine()
    os.kill(old, signal.SIGKILL)
    killed = time.perf_counter()
    while time.perf_counter() - killed < 60.0:
        await asyncio.sleep(_POLL_S)
        try:
            is_new = box.engine() != old
        except RuntimeError:
            continue
        if is_new and (await get(box.socket, "/readyz")).status == 200:
            return killed, time.perf_counter() - killed
    return killed, float("inf")


def _seam(told: Told, killed: float) -> tuple[str, str]:
    """The text before the kill, and the text after it."""
    before = "".join(text for at, text in told.texts if at <= killed)
    return before, told.text[len(before) :]


def _is_told_twice(told: Told, killed: float, undisturbed: str) -> bool:
    """Whether what came after the kill begins with the end of what had come before, where the text itself does not.

    Batched kernels flip near ties: a text that had already gone another way is judged by its number of tokens alone.
    """
    before, after = _seam(told, killed)
    if not undisturbed.startswith(before):
        return False
    expected = undisturbed[len(before) :]
    repeated = [before[-size:] for size in range(8, len(before) + 1) if after.startswith(before[-size:])]
    return any(not expected.startswith(end) for end in repeated)


async def _kill_under_load(box: Box, bodies: list[dict[str, Any]]) -> tuple[float, float, list[Told]]:
    """When the engine was killed beneath these requests, when it was back, and what became of them."""
    exchanges = [await Exchange.open(box.socket, "/v1/completions", body) for body in bodies]
    for exchange in exchanges[:4]:
        await exchange.begun(12)
    killed, back = await _kill(box)
    return killed, back, [await exchange.end() for exchange in exchanges]


async def killed_engine(stage: Stage) -> Outcome:
    """``kill -9`` of the engine beneath streams and queued requests."""
    count, tokens = 24, 64  # more than write at once
    rounds = 1 if stage.quick else 3
    quiet, loaded = list[float](), list[float]()
    queued, live, whole = list[Told](), list[tuple[Told, float, str]](), 0
    with stage.box() as box:
        for _ in range(rounds):
            # In turn: what a box has kept on disk meanwhile makes every later start a little longer.
            quiet.append((await _kill(box))[1])
            await complete(box.socket, completion(stage.text(20), 2))
            bodies = [completion(stage.text(PROMPT), tokens, logprobs=0) for _ in range(count)]
            undisturbed = await complete_all(box.socket, bodies)
            killed, back, told = await _kill_under_load(box, bodies)
            loaded.append(back)
            whole += sum(one.text == before.text for one, before in zip(told, undisturbed, strict=True))
            for one, before in zip(told, undisturbed, strict=True):
                if not any(at <= killed for at in one.times):
                    queued.append(one)
                elif not one.finish or one.finish[0] > killed:
                    live.append((one, killed, before.text))
        status = (await get(box.socket, "/edge/v1/status")).json
    twice = [(one, killed) for one, killed, text in live if _is_told_twice(one, killed, text)]
    told = [*queued, *(one for one, _, _ in live)]
    over = [one.tokens for one in told if not one.error and one.tokens != tokens]
    errors = Counter(one.error for one, _, _ in live if one.error)
    unserved = Counter(one.error for one in queued if one.error)
    continued = sum(not one.error for one, _, _ in live)
    note = f" ({middle(loaded):.2f} s, idle {middle(quiet):.2f} s)"
    rows = [
        Row.most("kill -9: back, of a start without load", middle(loaded) / middle(quiet), 1.1, note=note),
        Row.most("kill -9: queued requests that failed", sum(unserved.values()), 0, note=f" of {len(queued)}"),
        Row.most("kill -9: streams with a token twice or too few", len(twice) + len(over), 0, note=f" of {len(live)}"),
        Row.stated("kill -9: streams", f"{continued} went on, {dict(errors) or 'none'} ended with an error"),
    ]
    found: dict[str, Any] = {"back_s": loaded, "quiet_s": quiet, "live": len(live), "continued": continued}
    found |= {"errors": dict(errors), "unserved": dict(unserved), "same_text": whole, "wrong_length": over}
    seams = [[end[-60:], start[:60]] for end, start in (_seam(one, killed) for one, killed in twice)]
    return Outcome(rows, {**found, "twice": seams, "children": status.get("children")})

"""Tokens a second through the socket: one stream and eight, against the bare loop and llama-server, tree empty or full.

A figure is all of a request, from sending it to its last token; every prompt is new, so that nobody's cache helps.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from benchmarks.bare import Bare
from benchmarks.box import Box
from benchmarks.load import Door, Told, complete, complete_all, completion
from benchmarks.stage import Outcome, Row, Stage, idle, middle, whole_rate

PROMPT = 64  # tokens
TOKENS = 128
STREAMS = 8
ONE_BAR = 0.95
EIGHT_BAR = 0.90
FULL_BAR = 0.90


async def _run(door: Door, prompts: list[str]) -> list[Told]:
    return await complete_all(door, [completion(prompt, TOKENS) for prompt in prompts])


async def _rate(door: Door, prompts: list[str]) -> float:
    return whole_rate(await _run(door, prompts), TOKENS)


def _bare_rate(bare: Bare, prompts: list[str]) -> float:
    told = bare.run(prompts, TOKENS)
    return float(told["tokens"] / told["seconds"])


def _prompts(stage: Stage, count: int) -> list[str]:
    return [stage.text(PROMPT) for _ in range(count)]


async def one_stream(stage: Stage) -> Outcome:
    """One stream through the socket, in turn with the bare loop on the same prompt."""
    ours, bare_rates = list[float](), list[float]()
    client = wall = 0.0
    guessed = list[int]()
    with stage.box() as box, stage.bare(sequences=1) as bare:
        await complete(box.socket, completion(stage.text(PROMPT), 16))
        bare.run([stage.text(PROMPT)], 16)
        for _ in range(3 if stage.quick else 5):
            prompts = _prompts(stage, 1)
            bare_rates.append(_bare_rate(bare, prompts))
            cpu, began = time.process_time(), time.perf_counter()
            told = await _run(box.socket, prompts)
            ours.append(whole_rate(told, TOKENS))
            guessed.append(sum(one.guessed for one in told))
            client += time.process_time() - cpu
            wall += time.perf_counter() - began
    ratio = middle(ours) / middle(bare_rates)
    note = f" ({middle(ours):.1f} of {middle(bare_rates):.1f} tok/s)"
    plain = [one / middle(bare_rates) for one, guesses in zip(ours, guessed, strict=True) if not guesses]
    alone = f"{middle(plain):.3f} in {len(plain)} runs" if plain else "no run was without"
    rows = [
        Row.least("one stream / bare loop", ratio, ONE_BAR, note),
        Row.stated("  without a token guessed rightly", f"{alone} ({sum(guessed)} of {TOKENS * len(ours)} were)"),
    ]
    figures = {"ours": ours, "bare": bare_rates, "ratio": ratio, "client_cpu_share": client / wall}
    return Outcome(rows, {**figures, "guessed": guessed, "plain": plain, "tokens": TOKENS * len(ours)})


async def eight_streams(stage: Stage) -> Outcome:
    """Eight streams at once, in turn with the bare loop at eight and with each peer."""
    rates: dict[str, list[float]] = {"ours": [], "bare": [], **{name: [] for name in stage.peers}}
    client = wall = 0.0
    guessed = 0
    with ExitStack() as stack:
        box = stack.enter_context(stage.box())
        bare = stack.enter_context(stage.bare(sequences=STREAMS))
        peers = [stack.enter_context(stage.peer(name)) for name in stage.peers]
        doors: list[Door] = [box.socket, *(peer.door for peer in peers)]
        for door in doors:
            await complete(door, completion(stage.text(PROMPT), 16))
        bare.run([stage.text(PROMPT)], 16)
        for turn in range(2 if stage.quick else 3):
            prompts = _prompts(stage, STREAMS)
            rates["bare"].append(_bare_rate(bare, prompts))
            cpu, began = time.process_time(), time.perf_counter()
            told = await _run(box.socket, prompts)
            rates["ours"].append(whole_rate(told, TOKENS))
            guessed += sum(one.guessed for one in told)
            client += time.process_time() - cpu
            wall += time.perf_counter() - began
            for peer in peers[: 1 if turn else None]:
                rates[peer.name].append(await _rate(peer.door, prompts))
    found = {name: middle(values) for name, values in rates.items()}
    note = f" ({found['ours']:.1f} of {found['bare']:.1f} tok/s)"
    rows = [Row.least("8 streams / bare loop at 8", found["ours"] / found["bare"], EIGHT_BAR, note)]
    rows += [
        Row.stated(f"8 streams / {name}", f"{found['ours'] / found[name]:.3f} ({found[name]:.1f} tok/s)")
        for name in stage.peers
    ]
    return Outcome(
        rows, {"rates": rates, "middle": found, "guessed_tokens": guessed, "client_cpu_share": client / wall}
    )


async def _fill(stage: Stage, box: Box, count: int) -> dict[str, Any]:
    """Read ``count`` prompts of 500 to 1000 tokens, none like another; what was kept of them."""
    for number in range(count):
        prompt = stage.text(500 + 500 * number // max(1, count - 1))
        told = await complete(box.socket, completion(prompt, 1))
        if told.error:
            raise RuntimeError(f"filling the tree: {told.error}")
    await idle(box)
    return box.resident_bytes()


async def full_tree(stage: Stage) -> Outcome:
    """One stream and eight on a box whose prefix tree is full of other prompts, in turn with one that is empty."""
    empty: dict[str, list[float]] = {"one": [], "eight": []}
    full: dict[str, list[float]] = {"one": [], "eight": []}
    with stage.box() as bare_box, stage.box() as full_box:
        filled = await _fill(stage, full_box, 8 if stage.quick else 20)
        for turn in range(1 if stage.quick else 3):
            if turn:
                bare_box.restart()  # the runs themselves leave prompts in the tree
            for box, rates in ((bare_box, empty), (full_box, full)):
                await complete(box.socket, completion(stage.text(PROMPT), 16))
                rates["one"].append(await _rate(box.socket, _prompts(stage, 1)))
                rates["eight"].append(await _rate(box.socket, _prompts(stage, STREAMS)))
    rows = []
    for name in ("one", "eight"):
        ratio = middle(full[name]) / middle(empty[name])
        rows.append(Row.least(f"full tree / empty, {name}", ratio, FULL_BAR))
    return Outcome(rows, {"empty": empty, "full": full, "filled_pss": filled})

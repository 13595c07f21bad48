"""Other work on the same cores: busy neighbours that come and go, and embeddings beside streams."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.bare import Bare
from benchmarks.box import Box
from benchmarks.load import Choir, Exchange, Told
from benchmarks.stage import Outcome, Row, Stage, middle

PROMPT = 64  # tokens
BESIDE_ONE_BAR = 0.30
BESIDE_ALL_BAR = 0.22
GAP_BAR_S = 0.5
QUIET_BAR = 0.97
STREAMS = 4
WINDOW = 256  # tokens of one embedded window, the special ones included
WINDOWS_S = 2.0
WINDOWS_BAR = 0.85
SHARE_BAR = 0.8
_BUSY = "while True: pass"
_THREADING = ("OMP_", "GOMP_", "KMP_")


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """``count`` processes that never rest, at our own priority."""
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


async def _phases(stage: Stage, box: Box) -> list[dict[str, float]]:
    """One stream, while neighbours come and go: tokens a second and longest gap of each phase."""
    quiet, busy = (2.0, 4.0) if stage.quick else (3.0, 5.0)
    counts = [0, 1, 0, stage.cores, 0] * (1 if stage.quick else 2)
    found = []
    # Long enough that no phase sees a new prompt being read.
    async with Choir(box.socket, [stage.text(PROMPT)], 7000) as choir:
        await choir.settled()
        for count in counts:
            with neighbours(count):
                began = time.perf_counter()
                await asyncio.sleep(busy if count else quiet)
                ended = time.perf_counter()
            found.append({"neighbours": count, "began": began, "ended": ended})
        if choir.errors():
            raise RuntimeError(f"the stream failed beside neighbours: {choir.errors()}")
        for phase in found:
            began, ended = phase["began"], phase["ended"]
            phase["tokens_s"] = choir.rate(began, ended)
            phase["longest_s"] = max(choir.gaps(began, ended), default=ended - began)
            phase["longest_after_1s"] = max(choir.gaps(began + 1.0, ended), default=ended - began)
    return found


def _beside(phases: list[dict[str, float]], count: int) -> dict[str, float]:
    """Medians over the phases with ``count`` neighbours, each against the quiet ones around it."""
    ratios, longest, after = list[float](), list[float](), list[float]()
    for before, phase, behind in zip(phases, phases[1:], phases[2:], strict=False):
        if phase["neighbours"] == count and count:
            ratios.append(phase["tokens_s"] / max(1e-9, (before["tokens_s"] + behind["tokens_s"]) / 2))
            longest.append(phase["longest_s"])
            after.append(phase["longest_after_1s"])
    return {"ratio": middle(ratios), "longest_s": max(longest), "longest_after_1s": max(after)}


def _threading(pid: int) -> dict[str, str]:
    """What the daemon sets for its engine's threads."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name.startswith(_THREADING)}


def _step_rate(bare: Bare, prompt: str, tokens: int, seconds: float = 60.0) -> float:
    told = bare.run([prompt], tokens, seconds)
    return float((told["tokens"] - 1) / told["steps_s"])


def _default_threading(stage: Stage) -> dict[str, float]:
    """The bare loop as llama.cpp comes, quiet and beside neighbours: the ratios of its tokens a second."""
    prompt = stage.text(PROMPT)
    seconds = 4.0 if stage.quick else 6.0
    found = {}
    with stage.bare(sequences=1) as bare:
        quiet = _step_rate(bare, prompt, 64)
        for count in (1, stage.cores):
            with neighbours(count):
                told = bare.run([prompt[:20]], 10**6, seconds)
            found[f"beside_{count}"] = (told["tokens"] - 1) / max(told["steps_s"], seconds) / quiet
    return {"quiet_tokens_s": quiet, **found}


def _quiet(stage: Stage, environment: dict[str, str]) -> dict[str, Any]:
    """The bare loop with the engine's settings for threads against the one with llama.cpp's own, in turn."""
    rates: dict[str, list[float]] = {"default": [], "ours": []}
    with stage.bare(sequences=1) as default, stage.bare(sequences=1, environment=environment) as ours:
        for _ in range(3 if stage.quick else 5):
            prompt = stage.text(PROMPT)
            rates["default"].append(_step_rate(default, prompt, 96))
            rates["ours"].append(_step_rate(ours, prompt, 96))
    return {"rates": rates, "ratio": middle(rates["ours"]) / middle(rates["default"])}


async def busy_neighbours(stage: Stage) -> Outcome:
    """One stream beside one neighbour, and beside one for each core."""
    with stage.box() as box:
        phases = await _phases(stage, box)
        environment = _threading(box.engine())
    default = _default_threading(stage)
    quiet = _quiet(stage, environment)
    outcome = Outcome(figures={"phases": phases, "engine_environment": environment, "default": default, "quiet": quiet})
    for count, bar in dict.fromkeys(((1, BESIDE_ONE_BAR), (stage.cores, BESIDE_ALL_BAR))):
        found = _beside(phases, count)
        outcome.figures[f"beside_{count}"] = found
        note = f" (llama.cpp's own threading: {default[f'beside_{count}']:.3f})"
        outcome.rows.append(Row.least(f"beside {count} busy: tokens/s of quiet", found["ratio"], bar, note))
        note = f" (from the second second on: {found['longest_after_1s']:.3f} s)"
        outcome.rows.append(Row.most(f"beside {count} busy: longest gap", found["longest_s"], GAP_BAR_S, " s", note))
    told = " ".join(f"{name}={value}" for name, value in environment.items()) or "nothing set"
    outcome.rows.append(Row.least("quiet speed with our thread settings", quiet["ratio"], QUIET_BAR, f" ({told})"))
    return outcome


# ---- embeddings beside streams -------------------------------------------------------------------------------------

_SENTENCE = "the pump runs when water is cold and the old man has a red door by the sea side"


async def _embed(box: Box, text: str, seconds: float = 60.0) -> Told:
    body = {"model": "default", "input": text, "encoding_format": "base64"}
    return await (await Exchange.open(box.socket, "/v1/embeddings", body)).end(seconds)


async def _window(box: Box) -> list[str]:
    """Words that make exactly one full window."""
    words = (_SENTENCE.split() * WINDOW)[: WINDOW - 2]
    told = await _embed(box, " ".join(words))
    spare = told.json["usage"]["prompt_tokens"] - WINDOW
    return words[: len(words) - max(0, spare)]


async def _ceiling(box: Box, words: list[str], seconds: float) -> float:
    """Windows a second, two requests at a time and nothing else running."""
    done = 0
    began = time.perf_counter()

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await _embed(box, " ".join(words))
            done += 1

    await asyncio.gather(ask(), ask())
    return done / (time.perf_counter() - began)


async def _at_rate(box: Box, words: list[str], rate: float, seconds: float) -> list[Told]:
    """One window every ``1 / rate`` seconds, however long each takes."""
    tasks = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        turned = number % len(words)
        tasks.append(asyncio.create_task(_embed(box, " ".join(words[turned:] + words[:turned]))))
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    return list(await asyncio.gather(*tasks))


async def embeddings(stage: Stage) -> Outcome:
    """Four streams without and with embeddings beside them, in turn, at several rates."""
    seconds = 4.0 if stage.quick else 6.0
    with stage.box() as box:
        words = await _window(box)
        ceiling = await _ceiling(box, words, 3.0)
        rates = [WINDOWS_S, *(share * ceiling for share in ((0.5,) if stage.quick else (0.25, 0.5, 0.75)))]
        measured = []
        async with Choir(box.socket, [stage.text(PROMPT) for _ in range(STREAMS)], 1500) as choir:
            await choir.settled()
            for rate in rates:
                for asked in (0.0, rate, 0.0):
                    began = time.perf_counter()
                    told = await _at_rate(box, words, asked, seconds) if asked else await asyncio.sleep(seconds / 2, [])
                    measured.append((asked, choir.rate(began, time.perf_counter()), told))
            errors = choir.errors()
    outcome = Outcome(figures={"ceiling_windows_s": ceiling, "stream_errors": errors, "rates": []})
    for number, rate in enumerate(rates):
        (_, before, _), (_, during, told), (_, after, _) = measured[3 * number : 3 * number + 3]
        ratio = during / ((before + after) / 2)
        taken = figures.spread([one.ended - one.sent for one in told]) if told else {}
        failed = [one.error or one.status for one in told if one.status != 200]
        outcome.figures["rates"].append({"rate": rate, "ratio": ratio, "embedding": taken, "failed": failed})
        note = f" ({rate:.1f} of {ceiling:.1f} windows/s; each {taken.get('p50_ms', 0):.0f} ms, {len(failed)} failed)"
        bar = WINDOWS_BAR if number == 0 else SHARE_BAR * (1 - rate / ceiling)
        name = f"4 streams beside {rate:.1f} windows/s" if number == 0 else f"4 streams beside {rate / ceiling:.0%}"
        outcome.rows.append(Row.least(name, ratio, round(bar, 3), note))
    return outcome

"""How much of the embedder's own speed adding documents reaches.

The ceiling is the very texts that adding embeds, sent to an embedder child in full requests of like length, one always
waiting. Rounds of both alternate, and the best of each counts. Prints its machine and one JSON result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.box import Box
from benchmarks.machine import describe
from benchmarks.man_pages import paths, read
from edge_runtime.config import Config
from edge_runtime.daemon.child import Child
from edge_runtime.daemon.children import Embedder, ModelFiles
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.text_queue import TextQueue
from edge_runtime.knowledge.cutting import Cutter
from edge_runtime.knowledge.documents import Limits

REQUEST_TEXTS = 64
WAITING = 2  # requests that the child has at a time


async def texts_of(files: Sequence[Path], tokenizer: Path) -> list[str]:
    """What adding ``files`` embeds: passages and sentences, each text once."""
    cutter = Cutter(tokenizer)
    found: dict[str, None] = {}
    for file in files:
        content = await asyncio.to_thread(file.read_bytes)
        made = await cutter.cut(file.name, content, Limits())
        text = made.document.text
        found |= dict.fromkeys(text[one.start : one.end] for one in made.chunks)
        found |= dict.fromkeys(text[span.start : span.end] for span in made.sentences)
    cutter.close()
    return list(found)


async def ceiling(texts: Sequence[str], models: Path) -> float:
    """Seconds that an embedder child takes for ``texts``, its start not counted."""
    events = Events()
    options = ["--read", str(models), "--unsealed"]
    child = Child(
        "embedder", "edge_runtime.embedding", options=options, find=ModelFiles(Config(), models).embedder, events=events
    )
    embedder = Embedder(child, TextQueue(64, 64, "requests"))
    life = asyncio.ensure_future(child.supervise())
    await child.come()
    ordered = sorted(texts, key=len, reverse=True)
    parts = [ordered[at : at + REQUEST_TEXTS] for at in range(0, len(ordered), REQUEST_TEXTS)]
    turns = asyncio.Semaphore(WAITING)

    async def send(part: list[str]) -> None:
        async with turns:
            await embedder.embed(part, pool=False)

    started = time.perf_counter()
    await asyncio.gather(*map(send, parts))
    taken = time.perf_counter() - started
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    return taken


def add(folder: Path) -> float:
    """Seconds that ``edge add`` takes, on a box that has just become ready; its own start is counted."""
    with Box() as box:
        started = time.perf_counter()
        done = subprocess.run(
            [str(Path(sys.prefix) / "bin" / "edge"), "add", str(folder)],
            env={"EDGE_HOME": str(box.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.perf_counter() - started
        print(done.stderr.strip().splitlines()[-1], f"{taken:.1f} s", file=sys.stderr)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--longest", type=int, default=30_000, help="characters")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(describe()), file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for path in paths()[::37]:
            page = read(path)
            if page is not None and 1000 < len(page.text) < options.longest:
                (folder / f"{path.name}.txt").write_text(page.text, "utf-8")
            if sum(1 for _ in folder.iterdir()) >= options.documents:
                break
        with Box() as box:
            models = box.home / "models"
            load = ModelFiles(Config(), models).embedder()
            texts = asyncio.run(texts_of(sorted(folder.iterdir()), Path(load.tokenizer)))
            bare, whole = list[float](), list[float]()
            with box.stopped():
                for _ in range(options.rounds):
                    bare.append(asyncio.run(ceiling(texts, models)))
                    whole.append(add(folder))
        result = {
            "documents": sum(1 for _ in folder.iterdir()),
            "characters": sum(path.stat().st_size for path in folder.iterdir()),
            "texts": len(texts),
            "ceiling_s": [round(one, 2) for one in bare],
            "ingest_s": [round(one, 2) for one in whole],
            "share": round(min(bare) / min(whole), 3),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

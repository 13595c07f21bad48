"""Compacting by itself: only when it is worth it, and when nobody asks for anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.daemon.events import Events
from edge_runtime.daemon.peers import Uid
from edge_runtime.daemon.requests import Requests, Running
from edge_runtime.daemon.tidying import tidy
from edge_runtime.errors import EngineError
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import written

LOOK = 0.01


@dataclass
class Shelved:
    """As much of a library as tidying knows."""

    index: Index | None
    progress: tuple[int, int] | None = None
    finished: list[Any] = field(default_factory=list)

    @property
    def shelf(self) -> Shelved:
        if self.index is None:
            raise EngineError("the index is not open yet")
        return self

    @property
    def succession(self) -> Shelved:
        return self

    async def finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        self.finished.append(await work)
        return self.finished[-1]


@pytest.fixture
def wasteful(tmp_path: Path) -> Index:
    """Somebody read while a document was removed, so that its pages are still in the log."""
    index = Index.open(tmp_path / "index.db", embedder="model@1")
    gone = index.add(written("gone", "word " * 3000, parts=200))
    remover = threading.Thread(target=index.remove, args=(gone.id,))
    with index.database.reading() as connection:
        connection.execute("SELECT count(*) FROM documents").fetchall()
        remover.start()
        remover.join()
    assert index.needs_compacting()
    return index


async def _tidied(library: Shelved, requests: Requests, idle: float = 0.0) -> list[str]:
    events, told = Events(), list[str]()

    async def listen() -> None:
        async for event in events.subscribe():
            told.append(event.kind)

    listener = asyncio.ensure_future(listen())
    work = asyncio.ensure_future(tidy(library, requests, events, idle=idle, look=LOOK))  # type: ignore[arg-type]
    for _ in range(50):
        await asyncio.sleep(LOOK)
        if told:
            break
    work.cancel()
    events.close()
    await asyncio.gather(work, listener, return_exceptions=True)
    return told


def test_an_idle_box_gives_back_what_removed_documents_took(wasteful: Index) -> None:
    library = Shelved(wasteful)
    assert asyncio.run(_tidied(library, Requests())) == ["index.compacted"]
    assert not wasteful.needs_compacting()


@pytest.mark.parametrize("reason", ["asked lately", "asks now", "embeds anew", "not open"])
def test_a_box_that_has_other_things_to_do_is_left_alone(wasteful: Index, reason: str) -> None:
    library = Shelved(None if reason == "not open" else wasteful)
    library.progress = (1, 2) if reason == "embeds anew" else None
    requests = Requests()

    async def run() -> list[str]:
        entry = Running("req-1", "ask", Uid(0, frozenset()), None)
        if reason != "asks now":
            return await _tidied(library, requests, idle=60.0 if reason == "asked lately" else 0.0)
        with requests.track(entry):
            return await _tidied(library, requests, idle=0.001)

    assert asyncio.run(run()) == []
    assert library.finished == []


def test_looking_does_not_count_as_asking() -> None:
    requests = Requests()
    with requests.track(Running("req-1", "status", Uid(0, frozenset()), None, listed=False)):
        looked = requests.quiet
    with requests.track(Running("req-2", "ask", Uid(0, frozenset()), None)):
        asked = requests.quiet
    assert looked > 0.0
    assert asked == 0.0

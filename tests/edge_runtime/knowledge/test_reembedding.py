"""An index embedded anew for another model: nothing lost, nothing mixed, and never without an answer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import EngineError, RefusedError, StorageError
from edge_runtime.knowledge.embedder import TextKind, Vectors
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import Matrix, PreparedDocument
from edge_runtime.knowledge.reembedding import Reembedding, discard, progress
from edge_runtime.knowledge.search import search
from tests.edge_runtime.knowledge.conftest import direction, written

OLD, NEW, WIDTH = "old@1", "new@2", 24
STEP = 40  # characters of a window


class Hashing:
    """An embedding model of its own kind: a text's words, hashed into ``WIDTH`` numbers."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self.requests = 0
        self._before = before

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        del kind
        self.requests += 1
        self._before(self.requests)
        await asyncio.sleep(0)
        spans = [[(at, min(at + STEP, len(text))) for at in range(0, len(text), STEP)] for text in texts]
        spans = [[(0, len(text))] if pool else some for text, some in zip(texts, spans, strict=True)]
        rows = [
            np.vstack([hashed(text[start:end]) for start, end in some]) for text, some in zip(texts, spans, strict=True)
        ]
        return Vectors(rows, spans)


def hashed(text: str) -> Matrix:
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
    row = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row), np.float32)


def text_of(number: int) -> str:
    return f"Pump P{number} hums. Its alarm E{number} means low pressure. " * 8


def fill(home: Path, count: int = 5) -> None:
    """An index of the old embedder."""
    index = Index.open(home / "index.db", embedder=OLD)
    for number in range(count):
        index.add(written(f"{number}.txt", text_of(number), collection="pumps", seed=number, parts=3))
    index.set_collection("pumps", sensitivity="confidential", uids=[1000])
    index.close()


def reopen(home: Path) -> Index:
    return Index.open(home / "index.db", embedder=NEW, width=WIDTH)


def renew(home: Path, index: Index, embedder: Hashing | None = None) -> list[tuple[int, int]]:
    """Embed anew to the end; how far it said to be each time."""
    told: list[tuple[int, int]] = []
    work = Reembedding(index, embedder or Hashing(), home / "next.db", name=NEW, width=WIDTH)
    asyncio.run(work.run(lambda done, total: told.append((done, total))))
    return told


def prepared(name: str, width: int = WIDTH) -> PreparedDocument:
    """A document with vectors of the new model."""
    row = hashed("entirely new words")[:width]
    vector = row[None] / np.linalg.norm(row)
    return replace(
        written(name, "entirely new words", collection="pumps"),
        windows=[vector],
        window_spans=[[(0, 18)]],
        sentence_vectors=vector,
    )


def best(index: Index, text: str) -> tuple[str, float]:
    scope = index.scope("pumps")
    assert scope is not None
    chunk, cosine = next(iter(index.nearest(scope, hashed(text), 3).items()))
    (row,) = index.chunks([chunk])
    return row.document, cosine


def assert_renewed(home: Path, index: Index) -> None:
    """Every window and sentence is embedded by the new model, and nothing else is left."""
    assert (index.stale, index.embedder, index.width) == (False, NEW, WIDTH)
    assert list(home.glob("next.db*")) == []
    counts = index.report()
    assert counts.coverage == 1.0
    for held in index.documents():
        text = index.text(held.id)
        assert best(index, text[:STEP])[1] == pytest.approx(1.0, abs=1e-5)
    scope = index.scope("pumps")
    assert scope is not None
    for sentences in index.sentences(list(index.matching(scope, '"alarm"', 100))):
        assert sentences.vectors.shape == (len(sentences.texts), WIDTH)


def test_every_document_keeps_what_it_is_and_gets_new_vectors(tmp_path: Path) -> None:
    fill(tmp_path)
    index = reopen(tmp_path)
    before = index.documents()
    epoch = index.report().epoch
    assert renew(tmp_path, index) == [*((done, 5) for done in range(6)), (5, 5)]
    assert_renewed(tmp_path, index)
    assert index.documents() == before
    assert index.report().epoch == epoch + 1
    held = index.collection("pumps")
    assert held is not None
    assert (held.sensitivity, held.uids) == ("confidential", frozenset({1000}))
    index.add(prepared("more.txt"))
    assert {one.name for one in index.documents()} == {*(f"{number}.txt" for number in range(5)), "more.txt"}
    index.close()
    again = reopen(tmp_path)
    assert_renewed(tmp_path, again)


def test_the_old_index_answers_and_takes_no_document_until_the_new_one_is_whole(tmp_path: Path) -> None:
    fill(tmp_path)
    index = reopen(tmp_path)
    seen: list[str] = []

    def ask(_: int) -> None:
        (hit,) = search(index, "alarm E3", direction(3)[0], collection="pumps", k=1)
        seen.append(hit.document)
        assert index.stale
        with pytest.raises(RefusedError, match="edge index reembed"):
            index.add(written("x", "more"))

    renew(tmp_path, index, Hashing(ask))
    assert set(seen) == {"3.txt"}
    assert search(index, "alarm E3", hashed(text_of(3)[:STEP]), collection="pumps", k=1)[0].document == "3.txt"


def test_what_is_removed_and_labelled_meanwhile_is_so_at_the_end(tmp_path: Path) -> None:
    fill(tmp_path)
    index = reopen(tmp_path)
    ids = {one.name: one.id for one in index.documents()}

    def change(request: int) -> None:
        if request == 3:
            index.remove(ids["0.txt"])
            index.remove(ids["4.txt"])
            index.label(ids["1.txt"], tags=["kept"], date="2031-01-01")
            index.set_collection("pumps", sensitivity="secret", uids=[7])

    renew(tmp_path, index, Hashing(change))
    assert_renewed(tmp_path, index)
    held = {one.name: one for one in index.documents()}
    assert sorted(held) == ["1.txt", "2.txt", "3.txt"]
    assert (held["1.txt"].tags, held["1.txt"].date) == (["kept"], "2031-01-01")
    access = index.collection("pumps")
    assert access is not None
    assert (access.sensitivity, access.uids) == ("secret", frozenset({7}))


def test_what_was_interrupted_goes_on_with_the_next_document(tmp_path: Path) -> None:
    fill(tmp_path)
    index = reopen(tmp_path)

    def leave(request: int) -> None:
        if request == 4:
            raise EngineError("the embedder is gone")

    first = Hashing(leave)
    with pytest.raises(EngineError):
        renew(tmp_path, index, first)
    assert index.stale
    assert progress(index, tmp_path / "next.db") == (3, 5)
    second = Hashing()
    assert renew(tmp_path, index, second)[0] == (3, 5)
    assert second.requests == 2
    assert_renewed(tmp_path, index)


KILLED = """
import asyncio, os, signal, sys, threading
from pathlib import Path
from tests.edge_runtime.knowledge.test_reembedding import NEW, WIDTH, Hashing, reopen
from edge_runtime.knowledge.reembedding import Reembedding

home, point = Path(sys.argv[1]), int(sys.argv[2])
index = reopen(home)
watched = {"_store", "vectors", "reclaim", "close", "_compare", "_finish", "_copy_labels", "replace", "take", "discard"}
seen = 0

def watch(frame, event, _):
    global seen
    if event in ("call", "return") and frame.f_code.co_name in watched:
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

threading.setprofile(watch)
asyncio.run(Reembedding(index, Hashing(), home / "next.db", name=NEW, width=WIDTH).run(lambda *_: None))
threading.setprofile(None)
print(seen)
"""


@pytest.mark.parametrize("point", [3, 5, 9, 12, 16, 21, 23, 26, 29, 30, 32, 34, 35])
def test_killed_at_any_point_the_index_is_whole_and_the_work_goes_on(tmp_path: Path, point: int) -> None:
    fill(tmp_path, 3)
    command = [sys.executable, "-c", KILLED, os.fspath(tmp_path), str(point)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode in {-signal.SIGKILL, 0}, ended.stderr
    index = reopen(tmp_path)
    assert [one.name for one in index.documents()] == ["0.txt", "1.txt", "2.txt"]
    assert search(index, "alarm E1", None, collection="pumps", k=1)[0].document == "1.txt"
    if index.stale:
        renew(tmp_path, index)
    discard(tmp_path / "next.db")
    assert_renewed(tmp_path, index)


def test_readers_see_no_error_while_the_vectors_change_under_them(tmp_path: Path) -> None:
    fill(tmp_path)
    index = reopen(tmp_path)
    odd: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                assert search(index, "alarm E2", None, collection="pumps", k=1)[0].document == "2.txt"
                scope = index.scope("pumps")
                assert scope is not None
                index.sentences(list(index.matching(scope, '"pressure"', 5)))
            except BaseException as error:  # noqa: BLE001  (the outer edge of a thread)
                odd.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    renew(tmp_path, index)
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []
    assert_renewed(tmp_path, index)


def test_a_second_file_of_a_third_model_or_a_damaged_one_is_begun_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    third = Index.open(tmp_path / "next.db", embedder="third@3", width=16)
    third.add(prepared("odd", 16))
    third.close()
    index = reopen(tmp_path)
    renew(tmp_path, index)
    assert_renewed(tmp_path, index)
    assert "odd" not in {one.name for one in index.documents()}


def test_a_damaged_second_file_is_begun_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "next.db").write_bytes(b"SQLite format 3\0" + b"\x07" * 9000)
    index = reopen(tmp_path)
    assert progress(index, tmp_path / "next.db") == (0, 5)
    renew(tmp_path, index)
    assert_renewed(tmp_path, index)


def test_on_a_full_disk_the_old_index_stays_and_the_work_goes_on_later(tmp_path: Path) -> None:
    fill(tmp_path)
    index = reopen(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120 * 2**10, before[1]))
    try:
        with pytest.raises(StorageError, match=r"free|disk"):
            renew(tmp_path, index)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert index.stale
    assert search(index, "alarm E3", direction(3)[0], collection="pumps", k=1)[0].document == "3.txt"
    renew(tmp_path, index)
    assert_renewed(tmp_path, index)


def test_an_empty_index_of_another_width_is_made_the_new_one_s(tmp_path: Path) -> None:
    Index.open(tmp_path / "index.db", embedder=OLD).close()
    index = reopen(tmp_path)
    assert (index.stale, index.width, index.embedder) == (False, WIDTH, NEW)

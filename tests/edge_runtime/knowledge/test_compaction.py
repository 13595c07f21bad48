"""What is deleted gives its space back, a little at a time and all of it when asked, and a crash costs nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from edge_runtime.knowledge import vector_table
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import PreparedDocument
from tests.edge_runtime.knowledge.conftest import direction, everything, written

WORDS = [f"{first}{last}" for first in ("valve", "pump", "seal", "bolt") for last in range(200)]


def article(name: str, seed: int, *, parts: int = 12) -> PreparedDocument:
    """A document of made-up sentences; other seeds give other words."""
    chosen = random.Random(seed).choices(WORDS, k=parts * 60)
    return written(name, " ".join(chosen), seed=seed * 100, parts=parts, sha256=f"s{seed}")


def filled(path: Path, seeds: list[int]) -> Index:
    index = Index.open(path, embedder="test")
    for at, seed in enumerate(seeds):
        index.add(article(f"d{at}", seed))
    return index


def test_after_many_rounds_of_deleting_and_adding_the_file_is_hardly_larger_than_a_fresh_one(tmp_path: Path) -> None:
    choice = random.Random(4)
    seeds = list(range(40))
    index = filled(tmp_path / "index.db", seeds)
    for _ in range(12):
        half = choice.sample(range(40), 20)
        identities = {one.name: one.id for one in index.documents()}
        for at in half:
            index.remove(identities[f"d{at}"])
        for at in half:
            seeds[at] += 1000
            index.add(article(f"d{at}", seeds[at]))
    fresh = filled(tmp_path / "fresh.db", seeds)
    assert index.report().file_bytes <= 1.3 * fresh.report().file_bytes
    query = direction(seeds[3] * 100)[0]
    assert texts(index, query) == texts(fresh, query)
    fresh.close()
    index.close()


def texts(index: Index, query: np.ndarray) -> list[str]:
    return [row.text for row in index.chunks(list(index.nearest(everything(index), query, 20)))]


def test_compacting_gives_back_all_that_was_deleted_and_changes_no_answer(tmp_path: Path) -> None:
    seeds = list(range(60))
    index = filled(tmp_path / "index.db", seeds)
    kept = filled(tmp_path / "fresh.db", seeds[::3])
    assert not kept.needs_compacting()
    for at, one in enumerate(index.documents()):
        if at % 3:
            index.remove(one.id)
    query = direction(3000)[0]
    epoch, found, scored = index.stats().epoch, texts(index, query), index.matching(everything(index), '"valve7"', 99)
    before, after = index.compact()
    assert before > after == (tmp_path / "index.db").stat().st_size
    assert after <= 1.05 * kept.compact()[1]
    assert not index.needs_compacting()
    assert index.report().free_bytes < 0.02 * after
    with index._database.reading() as connection:
        assert vector_table.unused(connection) == 0
    assert (index.stats().epoch, texts(index, query)) == (epoch, found)
    assert index.matching(everything(index), '"valve7"', 99) == scored
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".compact")) == []
    kept.close()
    index.close()


def test_readers_and_writers_go_on_while_the_index_is_compacted(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", list(range(20)))
    for one in index.documents()[::2]:
        index.remove(one.id)
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with index.snapshot():
                scope = everything(index)
                found = index.nearest(scope, direction(3)[0], 40)
                if len(index.chunks(list(found))) != len(found) or not index.matching(scope, '"pump5"', 5):
                    wrong.append(found)

    def write() -> None:
        for at in range(8):
            index.add(article(f"more{at}", 500 + at))

    threads = [threading.Thread(target=work) for work in (read, read, write)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        index.compact()
    threads[-1].join()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert index.stats().documents == 18
    index.close()


_COMPACT = """
import sys
from pathlib import Path
from edge_runtime.knowledge.index import Index
index = Index.open(Path(sys.argv[1]), embedder="test")
print("open", flush=True)
index.remove(index.documents()[0].id)
while True:
    index.compact()
"""


def test_a_process_killed_while_compacting_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = filled(path, list(range(30)))
    for one in index.documents()[1::2]:
        index.remove(one.id)
    index.close()
    for turn, wait in enumerate((0.02, 0.05, 0.11, 0.23)):
        process = subprocess.Popen([sys.executable, "-c", _COMPACT, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        index = Index.open(path, embedder="test")
        report = index.report()
        assert report.documents in {14 - turn, 15 - turn, 15}
        assert (report.chunks, report.windows) == (report.documents * 12, report.documents * 24)
        scope = everything(index)
        assert len(index.nearest(scope, direction(1)[0], 4096)) == report.chunks
        assert len(index.matching(scope, " OR ".join(f'"{word}"' for word in WORDS), 4096)) == report.chunks
        assert not list(tmp_path.glob("*.compact"))  # it holds texts, and is removed when the index is opened
        index.close()


def test_a_deletion_is_on_the_disk_although_somebody_reads_an_older_snapshot(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db", embedder="test")
    index.add(written("kept", "harmless words"))
    gone = index.add(written("secret", "The vault code is xylophone4711. " * 50, parts=4, seed=50))

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    with index.snapshot():
        done = threading.Thread(target=index.remove, args=(gone.id,))
        done.start()
        done.join()
        assert index.text(gone.id, 0, 9) == "The vault"  # as of the snapshot
        assert b"xylophone4711" in held()
        assert index.needs_compacting()
    index.compact()
    assert b"xylophone" not in held()
    assert not index.needs_compacting()
    index.close()

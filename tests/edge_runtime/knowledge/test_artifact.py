"""An exported index: the same for the same documents, with nothing in it that was not asked for, and never half."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime.daemon.startup import sweep
from edge_runtime.errors import NotFoundError, RefusedError, RequestError, StoppedError, StorageError
from edge_runtime.knowledge.artifact import write
from edge_runtime.knowledge.frozen import open_frozen
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.inspection import Header, inspect
from edge_runtime.knowledge.records import PreparedDocument
from edge_runtime.paths import Paths
from tests.edge_runtime.knowledge.conftest import direction, written

DAY = "2031-02-03"


def export(index: Index, target: Path, *collections: str) -> Header:
    return write(index, target, collections, day=DAY, program="test")


def document(number: int, collection: str = "pumps") -> PreparedDocument:
    text = f"Pump P{number} hums. Its alarm E{number} means low pressure. " * 5
    return written(f"{number}.txt", text, collection=collection, seed=number, parts=3, sha256=f"sha-{number}")


def filled(path: Path, order: list[int]) -> Index:
    index = Index.open(path, embedder="model@1")
    for number in order:
        index.add(document(number))
    return index


def test_the_same_documents_give_the_same_bytes_whatever_became_of_the_box_before(tmp_path: Path) -> None:
    one = filled(tmp_path / "one.db", [1, 2, 3])
    other = filled(tmp_path / "other.db", [9, 3, 8, 1])
    for held in other.documents():
        if held.name in {"8.txt", "9.txt"}:
            other.remove(held.id)
    other.add(document(2))
    other.add(document(7, "valves"))
    other.set_collection("pumps", uids=[1000])
    first = export(one, tmp_path / "one.index")
    second = export(other, tmp_path / "other.index", "pumps")
    assert first == second
    assert (tmp_path / "one.index").read_bytes() == (tmp_path / "other.index").read_bytes()
    one.add(written("4.txt", "one more", collection="pumps"))
    assert export(one, tmp_path / "more.index").digest != first.digest


def test_an_export_answers_as_the_index_that_it_was_made_from(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", [1, 2, 3])
    index.add(document(4, "valves"))
    header = export(index, tmp_path / "out.index")
    assert [(one.name, one.documents) for one in header.collections] == [("pumps", 3), ("valves", 1)]
    frozen = open_frozen(tmp_path / "out.index", embedder=header.embedder, width=header.width)
    for collection in ("pumps", "valves"):
        ours, theirs = index.scope(collection), frozen.scope(collection)
        assert ours is not None
        assert theirs is not None
        seen = [
            [(row.document, row.start, row.text, round(score, 5)) for row in held.chunks(list(found))]
            for held, scope in ((index, ours), (frozen, theirs))
            for found in (held.nearest(scope, direction(3)[0], 20),)
            for score in (max(found.values()),)
        ]
        assert seen[0] == seen[1]
        words = [
            sorted((row.document, row.start) for row in held.chunks(list(held.matching(scope, '"alarm"', 50))))
            for held, scope in ((index, ours), (frozen, theirs))
        ]
        assert words[0] == words[1] != []
    for held in frozen.documents():
        same = next(one for one in index.documents() if one.name == held.name)
        assert frozen.text(held.id) == index.text(same.id)
        assert (held.chunks, held.characters, held.sha256) == (same.chunks, same.characters, same.sha256)
    assert frozen.report().coverage == index.report().coverage


def test_an_export_holds_no_readers_and_no_word_of_other_or_removed_documents(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", [1])
    index.set_collection("pumps", sensitivity="confidential", uids=[31337])
    index.add(written("s", "The vault code is xylophone4711. ", collection="secrets"))
    gone = index.add(written("g", "The former code was glockenspiel815. ", collection="pumps"))
    index.remove(gone.id)
    index.keep_settings({"search.pumps.base": 0.25, "search.secrets.base": 0.75})
    header = export(index, tmp_path / "out.index", "pumps")
    data = (tmp_path / "out.index").read_bytes()
    for word in (b"xylophone", b"vault", b"glockenspiel", b"31337", b"secrets"):
        assert word not in data
    frozen = open_frozen(tmp_path / "out.index", embedder=header.embedder, width=header.width)
    (held,) = frozen.collections()
    assert (held.name, held.sensitivity, held.uids) == ("pumps", "confidential", frozenset())
    assert frozen.setting("search.pumps.base", 0.0) == 0.25
    assert frozen.setting("search.secrets.base", 0.0) == 0.0


def test_tags_and_dates_travel_and_a_document_has_the_same_id_in_every_export(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", [1, 2])
    (first, *_) = index.documents()
    index.label(first.id, tags=["service"], date="2030-05-06")
    header = export(index, tmp_path / "out.index")
    frozen = open_frozen(tmp_path / "out.index", embedder=header.embedder, width=header.width)
    held = {one.name: one for one in frozen.documents()}
    assert (held["1.txt"].tags, held["1.txt"].date) == (["service"], "2030-05-06")
    index.add(document(3))
    export(index, tmp_path / "more.index")
    later = open_frozen(tmp_path / "more.index", embedder=header.embedder, width=header.width)
    assert {one.name: one.id for one in later.documents()}["2.txt"] == held["2.txt"].id != first.id


def test_what_comes_during_an_export_is_not_in_it(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", [1, 2, 3])

    def change() -> None:
        index.add(document(8))
        index.remove(next(one.id for one in index.documents() if one.name == "3.txt"))

    def tell(done: int, _: int) -> None:
        if done == 1:
            other = threading.Thread(target=change)
            other.start()
            other.join()

    header = write(index, tmp_path / "out.index", [], day=DAY, program="test", told=tell)
    assert header.documents == 3
    assert inspect(tmp_path / "out.index").header == header
    assert {one.name for one in index.documents()} == {"1.txt", "2.txt", "8.txt"}


def test_a_name_that_is_taken_an_unknown_collection_and_an_empty_index_are_refused(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", [])
    with pytest.raises(RequestError, match="edge add"):
        export(index, tmp_path / "out.index")
    index.add(document(1))
    with pytest.raises(NotFoundError, match="those are: pumps"):
        export(index, tmp_path / "out.index", "pumps", "pmps")
    (tmp_path / "out.index").symlink_to("nowhere")
    with pytest.raises(RefusedError, match="choose another name"):
        export(index, tmp_path / "out.index")
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.index"]


@contextmanager
def _stunted(most: int) -> Iterator[None]:
    """No file of this process grows past ``most`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [64 * 2**10, 300 * 2**10])
def test_on_a_full_disk_nothing_is_left_of_an_export(tmp_path: Path, most: int) -> None:
    index = filled(tmp_path / "index.db", list(range(8)))
    (tmp_path / "exports").mkdir()
    with _stunted(most), pytest.raises(StorageError, match="free some space"):
        export(index, tmp_path / "exports" / "out.index")
    assert list((tmp_path / "exports").iterdir()) == []
    assert export(index, tmp_path / "exports" / "out.index").documents == 8


def test_a_stopped_export_leaves_nothing(tmp_path: Path) -> None:
    index = filled(tmp_path / "index.db", [1, 2, 3])
    (tmp_path / "exports").mkdir()

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise StoppedError("enough")

    with pytest.raises(StoppedError):
        write(index, tmp_path / "exports" / "out.index", [], day=DAY, program="test", told=stop)
    assert list((tmp_path / "exports").iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from edge_runtime.knowledge.artifact import write
from edge_runtime.knowledge.index import Index

def tell(done, total):
    if done == 2:
        print("half", flush=True)
        time.sleep(60)

index = Index.open(Path(sys.argv[1]), embedder="model@1")
write(index, Path(sys.argv[2]), [], day="2031-02-03", program="test", told=tell)
"""


def test_a_killed_export_leaves_no_half_file_and_the_next_start_removes_what_it_wrote(tmp_path: Path) -> None:
    home = Paths(tmp_path)
    for folder in (home.exports, home.backups):
        folder.mkdir()
    filled(home.index, [1, 2, 3, 4]).close()
    target = home.exports / "out.index"
    command = [sys.executable, "-c", KILLED, os.fspath(home.index), os.fspath(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in home.exports.iterdir()] == [".out.index.partial"]
    sweep(home)
    assert list(home.exports.iterdir()) == []
    index = Index.open(home.index, embedder="model@1")
    assert export(index, target).documents == 4

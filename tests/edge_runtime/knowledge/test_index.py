"""The index on a real disk: atomic, purging, honest about damage and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import NotFoundError, RequestError, StorageError
from edge_runtime.knowledge.index import PART_CHARS, Index, _insert_document, _text
from edge_runtime.knowledge.schema import MIGRATIONS, Migration, migrate, version
from tests.edge_runtime.knowledge.conftest import direction, written


def test_a_stored_document_gives_back_its_text_chunks_and_sentences(index: Index) -> None:
    text = "Alarm E17 means low pressure. " * 10
    document = index.add(written("pump.txt", text, parts=3, seed=5))
    assert (document.name, document.characters, document.chunks) == ("pump.txt", len(text), 3)
    assert index.documents() == [document] == index.documents("default")
    assert index.documents("other") == []
    assert index.text(document.id) == text
    assert index.text(document.id, 6, 9) == "E17"
    assert index.text(document.id, -5, 5) == "Alarm"
    assert index.text(document.id, len(text) + 5, len(text) + 9) == ""
    best = next(iter(index.nearest("default", direction(6, 2)[1], 4)))
    (row,) = index.chunks([best])
    assert row.text == text[row.start : row.end]
    assert (row.heading, row.page, row.document) == (("Top", "Sub"), 2, "pump.txt")
    (sentences,) = index.sentences([best])
    assert sentences.texts == [text[span.start : span.end] for span in sentences.spans]
    assert sentences.vectors @ direction(82, 3)[1] == pytest.approx(1, abs=1e-3)


def test_the_same_bytes_again_change_nothing(index: Index) -> None:
    first = index.add(written("a", "text one", sha256="s1"))
    epoch = index.stats().epoch
    assert index.add(written("a", "text one", sha256="s1")) == first
    assert index.stats().epoch == epoch


def test_other_bytes_under_a_name_replace_the_document_whole(index: Index) -> None:
    first = index.add(written("a", "old words alone", parts=3))
    second = index.add(written("a", "new words", seed=9))
    assert second.id != first.id
    assert [one.id for one in index.documents()] == [second.id]
    assert index.matching("default", '"old"', 10) == {}
    assert len(index.matching("default", '"new"', 10)) == 1
    assert index.stats().windows == 2
    with pytest.raises(NotFoundError):
        index.document(first.id)


def test_the_same_name_in_two_collections_is_two_documents(index: Index) -> None:
    index.add(written("a", "one", collection="x"))
    index.add(written("a", "two", collection="y"))
    assert len(index.documents()) == 2
    assert len(index.documents("x")) == 1


def test_removing_purges_every_trace_from_the_file(index: Index, tmp_path: Path) -> None:
    kept = index.add(written("keep", "harmless words"))
    gone = index.add(written("secret", "The vault code is xylophone4711. " * 50, parts=4, seed=50))
    assert b"xylophone4711" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert index.remove(gone.id) == {"chunks": 4, "vectors": 8, "sentences": 4}
    assert b"xylophone4711" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"xylophone" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [one.id for one in index.documents()] == [kept.id]
    assert index.rarity(["xylophone4711"])[1] == {}
    with pytest.raises(NotFoundError, match="edge docs"):
        index.remove(gone.id)


def test_the_file_does_not_grow_when_documents_are_replaced_again_and_again(index: Index) -> None:
    def add(turn: int) -> int:
        index.add(written("a", f"turn {turn} " * 2000, parts=40, seed=turn))
        return index.stats().file_bytes

    first = add(0)
    assert max(add(turn) for turn in range(1, 15)) < 1.5 * first


def test_vectors_that_do_not_match_their_spans_are_refused(index: Index) -> None:
    document = written("a", "text")
    document.windows.clear()
    with pytest.raises(RequestError):
        index.add(document)
    assert index.stats().documents == 0


def test_readers_in_other_threads_see_whole_documents_while_one_is_replaced(index: Index) -> None:
    index.add(written("a", "word " * 500, parts=20))
    torn: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            stats = index.stats()
            if (stats.documents, stats.chunks, stats.windows) != (1, 20, 40):
                torn.append(stats)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        index.add(written("a", f"{turn} " * 1000, parts=20, seed=turn))
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []


@given(st.integers(0, 3 * PART_CHARS), st.integers(0, 3 * PART_CHARS), st.integers(0, 3 * PART_CHARS))
def test_any_stretch_of_a_long_text_is_verbatim(length: int, start: int, end: int) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE documents (key INTEGER PRIMARY KEY, id, collection, name, format, title, sha256,"
                       " characters, pages, added); CREATE TABLE texts (document, start, text);"
                       " CREATE TABLE sentences (a, b, c, d)")  # fmt: skip
    text = "".join(chr(0x100 + at % 5000) for at in range(length))
    key = _insert_document(connection, written("a", text, parts=1) if text else written("a", "x"), "id", 1)
    if text:
        assert _text(connection, key, start, end) == text[start:end]


_ADD = """
import sys
from pathlib import Path
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import written
index = Index.open(Path(sys.argv[1]), embedder="test")
print("open", flush=True)
for turn in range(10_000):
    index.add(written("a", f"turn {turn} " * 3000, parts=30, seed=turn))
"""


def test_a_process_killed_while_adding_leaves_one_whole_document(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    for wait in (0.05, 0.13, 0.31):
        process = subprocess.Popen([sys.executable, "-c", _ADD, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        index = Index.open(path, embedder="test")
        stats = index.stats()
        assert (stats.documents, stats.chunks, stats.windows, stats.sentences) in {(1, 30, 60, 30), (0, 0, 0, 0)}
        assert len(index.matching("default", '"turn"', 100)) == stats.chunks
        assert len(index.nearest("default", direction(1)[0], 100)) == stats.chunks
        index.close()


_FILL = """
import resource, signal, sys
from pathlib import Path
from edge_runtime.errors import StorageError
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import written
index = Index.open(Path(sys.argv[1]), embedder="test")
kept = index.add(written("kept", "kept words"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
try:
    index.add(written("large", "large " * 500_000, parts=900))
except StorageError as error:
    print(error.message)
assert [one.id for one in index.documents()] == [kept.id]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
index.add(written("later", "later words"))
index.close()
"""


def test_a_disk_that_fills_up_is_named_and_nothing_stored_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    done = subprocess.run([sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "free" in done.stdout
    assert "intact" in done.stdout
    index = Index.open(path, embedder="test")
    assert [one.name for one in index.documents()] == ["kept", "later"]
    index.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "middle"])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path, embedder="test")
    index.add(written("a", "words " * 5000, parts=50))
    index.close()
    whole = bytearray(path.read_bytes())
    match damage:
        case "garbage":
            whole[:] = os.urandom(len(whole))
        case "truncated":
            del whole[len(whole) // 2 :]
        case "middle":
            whole[8192 : len(whole) - 8192] = os.urandom(len(whole) - 16384)
    path.write_bytes(whole)
    with pytest.raises(StorageError, match="restore"):
        Index.open(path, embedder="test")
    assert path.read_bytes() == whole


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE cats (name)")
    other.close()
    with pytest.raises(StorageError, match="something else"):
        Index.open(path, embedder="test")


def test_an_index_of_another_embedder_is_refused_unless_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Index.open(path, embedder="one").close()
    index = Index.open(path, embedder="two")
    index.add(written("a", "words"))
    index.close()
    with pytest.raises(StorageError, match="two/384"):
        Index.open(path, embedder="one")
    Index.open(path, embedder="two").close()


def test_a_file_from_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Index.open(path, embedder="test").close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", MIGRATIONS[-1].number + 1)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="newer version"):
        Index.open(path, embedder="test")
    assert path.read_bytes() == before


def test_migrations_run_forward_once_and_a_failing_one_leaves_the_last_good_schema() -> None:
    import sqlite_vec

    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    assert migrate(connection, "x", width=8, now=1.0) == [one.number for one in MIGRATIONS]
    assert migrate(connection, "x", width=8, now=2.0) == []

    def good(connection: apsw.Connection, width: int) -> None:
        connection.execute("ALTER TABLE documents ADD COLUMN note TEXT")

    def bad(connection: apsw.Connection, width: int) -> None:
        connection.execute("CREATE TABLE half (a)")
        connection.execute("this is no SQL")

    number = MIGRATIONS[-1].number
    longer = (*MIGRATIONS, Migration(number + 1, "good", good), Migration(number + 2, "bad", bad))
    with pytest.raises(apsw.SQLError):
        migrate(connection, "x", width=8, now=3.0, migrations=longer)
    assert version(connection) == number + 1
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").get == 0
    assert connection.execute("SELECT max(number) FROM migrations").get == number + 1


def test_a_backup_is_a_whole_index(index: Index, tmp_path: Path) -> None:
    index.add(written("a", "words"))
    index.backup(tmp_path / "copy.db")
    copy = Index.open(tmp_path / "copy.db", embedder="test")
    assert copy.documents() == index.documents()
    assert np.isclose(next(iter(copy.nearest("default", direction(0, 2)[0], 2).values())), 1, atol=1e-3)
    copy.close()


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db", embedder="test")
    index.close()
    with pytest.raises(StorageError, match="closed"):
        index.documents()
    with pytest.raises(StorageError, match="closed"):
        index.add(written("a", "words"))


def test_a_collection_keeps_its_label_and_its_readers(index: Index) -> None:
    assert index.collection("hr") is None
    made = index.set_collection("hr", sensitivity="secret", uids=[1000], gids=[50])
    assert (made.sensitivity, made.uids, made.gids) == ("secret", {1000}, {50})
    changed = index.set_collection("hr", uids=[])
    assert (changed.sensitivity, changed.uids, changed.gids) == ("secret", frozenset(), {50})
    index.add(written("a", "words"))
    assert [(one.name, one.sensitivity) for one in index.collections()] == [("default", "internal"), ("hr", "secret")]

"""Index files that are not what they should be, disks that are full, and two processes with one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from edge_runtime.errors import StorageError
from edge_runtime.knowledge import database
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import direction, everything, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An index file with a document of 50 chunks."""
    path = tmp_path_factory.mktemp("whole") / "index.db"
    index = Index.open(path, embedder="test")
    index.add(written("a", "words " * 5000, parts=50))
    index.close()
    return path.read_bytes()


def is_intact(path: Path) -> bool:
    index = Index.open(path, embedder="test")
    try:
        scope = everything(index)
        return (
            index.report().documents == 1
            and len(index.nearest(scope, direction(0)[0], 100)) == 50
            and len(index.matching(scope, '"words"', 100)) == 50
            and index.text(index.documents()[0].id) == "words " * 5000
        )
    finally:
        index.close()


@pytest.mark.parametrize("length", [1, 15, 16, 99, 100, 101, 4095, 4096, 4097, 0.5, -4096, -1])
def test_a_truncated_file_is_refused_and_left_as_it_is(tmp_path: Path, whole: bytes, length: float) -> None:
    path = tmp_path / "index.db"
    kept = whole[: int(len(whole) * length) if isinstance(length, float) else length]
    path.write_bytes(kept)
    with pytest.raises(StorageError, match=r"damaged.*restore"):
        Index.open(path, embedder="test")
    assert path.read_bytes() == kept


def test_a_large_file_that_lost_its_end_is_refused_without_reading_it_all(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_CHECKED_BYTES", 1000)
    path = tmp_path / "index.db"
    path.write_bytes(whole[:-8192])
    with pytest.raises(StorageError, match="damaged"):
        Index.open(path, embedder="test")
    assert path.read_bytes() == whole[:-8192]


@pytest.mark.parametrize("damage", ["garbage", "middle"])
def test_a_file_with_other_bytes_in_it_is_refused_and_left_as_it_is(tmp_path: Path, whole: bytes, damage: str) -> None:
    path = tmp_path / "index.db"
    spoilt = bytearray(whole)
    if damage == "garbage":
        spoilt[:] = os.urandom(len(spoilt))
    else:
        spoilt[8192 : len(spoilt) - 8192] = os.urandom(len(spoilt) - 16384)
    path.write_bytes(spoilt)
    with pytest.raises(StorageError, match="restore"):
        Index.open(path, embedder="test")
    assert path.read_bytes() == spoilt


def test_a_flipped_byte_anywhere_in_the_header_is_harmless_or_refused(tmp_path: Path, whole: bytes) -> None:
    harmless = 0
    for at in range(100):
        path = tmp_path / f"{at}.db"
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        path.write_bytes(flipped)
        try:
            intact = is_intact(path)
        except StorageError:
            assert path.read_bytes() == flipped
        else:
            assert intact, at
            harmless += 1
        for left in tmp_path.iterdir():
            left.unlink()
    assert 0 < harmless < 100


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE cats (name)")
    other.close()
    with pytest.raises(StorageError, match="something else"):
        Index.open(path, embedder="test")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.db").mkdir()
    with pytest.raises(StorageError, match=r"index\.db"):
        Index.open(tmp_path / "index.db", embedder="test")


_FILL = """
import resource, signal, sys
from pathlib import Path
from edge_runtime.errors import StorageError
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import written
index = Index.open(Path(sys.argv[1]), embedder="test")
kept = index.add(written("kept", "kept words"))
index.add(written("filler", "filler " * 9000, parts=200, seed=9))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
full = index.report().file_bytes if sys.argv[2] == "compact" else 4_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (full // 2 if sys.argv[2] == "compact" else full, resource.RLIM_INFINITY))
try:
    match sys.argv[2]:
        case "add":
            index.add(written("large", "large " * 500_000, parts=900))
        case "replace":
            index.add(written("kept", "large " * 500_000, parts=900))
        case "compact":
            index.compact()
except StorageError as error:
    print(error.message)
assert {one.name for one in index.documents()} == {"kept", "filler"}
assert index.text(kept.id) == "kept words"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
index.add(written("later", "later words"))
index.close()
"""


@pytest.mark.parametrize("work", ["add", "replace", "compact"])
def test_a_disk_that_fills_up_is_named_and_nothing_stored_is_lost(tmp_path: Path, work: str) -> None:
    path = tmp_path / "index.db"
    command = [sys.executable, "-c", _FILL, str(path), work]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "free" in done.stdout
    assert "intact" in done.stdout
    index = Index.open(path, embedder="test")
    assert {one.name for one in index.documents()} == {"kept", "filler", "later"}
    assert not list(tmp_path.glob("*.compact"))
    index.close()


def test_an_older_file_on_a_full_disk_stays_as_it_is(tmp_path: Path) -> None:
    from tests.edge_runtime.knowledge.test_schema import first_schema

    path = tmp_path / "index.db"
    first_schema(path)
    program = (
        "import resource, signal, sys; from pathlib import Path; from edge_runtime.errors import StorageError\n"
        "from edge_runtime.knowledge.index import Index\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))\n"
        "try:\n    Index.open(Path(sys.argv[1]), embedder='test')\n"
        "except StorageError as error:\n    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "intact" in done.stdout
    index = Index.open(path, embedder="test")
    assert index.report().documents == 2
    index.close()


_ADD = """
import sys
from pathlib import Path
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import written
index = Index.open(Path(sys.argv[1]), embedder="test")
for turn in range(15):
    index.add(written(f"{sys.argv[2]}{turn}", f"turn {turn} " * 300, parts=10, seed=turn))
    index.remove(index.add(written(f"{sys.argv[2]} gone", f"gone {turn}")).id)
index.close()
"""


def test_two_processes_write_one_file_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", _ADD, str(path), name], stderr=subprocess.PIPE, cwd=Path.cwd())
        for name in ("left", "right")
    ]
    for process in processes:
        _, complaint = process.communicate()
        assert process.returncode == 0, complaint.decode()
    index = Index.open(path, embedder="test")
    report = index.report()
    assert (report.documents, report.chunks, report.windows) == (30, 300, 600)
    assert len(index.nearest(everything(index), direction(0)[0], 4096)) == 300
    index.close()


def test_a_file_that_another_process_keeps_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.db"
    Index.open(path, embedder="test").close()
    monkeypatch.setattr(database, "BUSY_MS", 50)
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked by another process"):
        Index.open(path, embedder="other model")
    other.execute("ROLLBACK")
    other.close()
    Index.open(path, embedder="other model").close()


def test_a_copy_without_its_log_is_what_was_stored_last_and_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path, embedder="test")
    index.add(written("a", "first words"))
    index.backup(tmp_path / "copy.db")
    index.add(written("b", "second words"))
    shutil.copy(path, tmp_path / "torn.db")
    index.close()
    for name in ("copy.db", "torn.db"):
        opened = Index.open(tmp_path / name, embedder="test")
        assert [one.name for one in opened.documents()] in ([], ["a"])
        opened.close()

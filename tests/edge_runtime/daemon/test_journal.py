"""The journal's file: what it keeps, how it is brought forward, and which files it leaves alone."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from edge_runtime.daemon.journal import MIGRATIONS, Journal
from edge_runtime.errors import StorageError
from edge_runtime.knowledge.schema import Migration
from edge_runtime.knowledge_protocol import FeedbackRequest

NEXT = MIGRATIONS[-1].number + 1


def pragma(path: Path, name: str) -> object:
    connection = apsw.Connection(str(path))
    try:
        return connection.pragma(name)
    finally:
        connection.close()


def written(path: Path) -> Path:
    journal = Journal(path)
    journal.note(FeedbackRequest(answer_id="a1", verdict="good", hit=0), "uid 7")
    journal.note(FeedbackRequest(answer_id="a2", verdict="bad"), "token")
    journal.close()
    return path


def test_what_was_noted_is_there_after_the_file_was_closed(tmp_path: Path) -> None:
    journal = Journal(written(tmp_path / "journal.db"))
    assert journal.verdicts() == [("a1", "good", 0), ("a2", "bad", None)]
    journal.close()


def test_an_older_file_is_brought_forward_with_what_it_holds(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.db")

    def widen(connection: apsw.Connection, width: int) -> None:
        connection.execute("ALTER TABLE feedback ADD COLUMN note TEXT")

    for _ in range(2):
        journal = Journal(path, migrations=(*MIGRATIONS, Migration(NEXT, "notes", widen)))
        assert journal.verdicts() == [("a1", "good", 0), ("a2", "bad", None)]
        journal.close()
    assert pragma(path, "user_version") == NEXT


def test_a_step_that_fails_leaves_the_last_good_schema(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.db")

    def fail(connection: apsw.Connection, width: int) -> None:
        connection.execute("CREATE TABLE half (a)")
        raise OSError

    with pytest.raises(OSError):
        Journal(path, migrations=(*MIGRATIONS, Migration(NEXT, "broken", fail)))
    assert pragma(path, "user_version") == MIGRATIONS[-1].number
    journal = Journal(path)
    assert len(journal.verdicts()) == 2
    journal.close()


def test_a_file_from_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.db")
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", NEXT)
    connection.pragma("wal_checkpoint", "truncate")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="newer version"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(StorageError, match="damaged"):
        Journal(path)
    assert path.read_bytes() == b"no database at all, " * 100

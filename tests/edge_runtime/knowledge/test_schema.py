"""Files of earlier schemas are brought forward with their rows; those of later ones stay as they are."""

from __future__ import annotations

from pathlib import Path

import apsw
import numpy as np
import pytest
import sqlite_vec

from edge_runtime.errors import StorageError
from edge_runtime.knowledge.digests import chunk_digest
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.schema import MIGRATIONS, SHIFT, Migration, migrate, version
from edge_runtime.knowledge_protocol import Filter
from tests.edge_runtime.knowledge.conftest import direction, everything, written

TEXT = "Alarm E17 means low pressure.\n\nThe gland bolts are tightened to 25 Nm."
CUT = TEXT.index("The")


def connect(path: Path | str) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    return connection


def first_schema(path: Path) -> None:
    """What the program wrote at schema 1: two documents, of two chunks (the second in two windows) and of one."""
    connection = connect(path)
    connection.pragma("auto_vacuum", "incremental")
    connection.pragma("journal_mode", "wal")
    migrate(connection, str(path), width=384, now=1.0, migrations=MIGRATIONS[:1])
    connection.execute("BEGIN")
    connection.execute("INSERT INTO meta VALUES ('embedder', 'test/384'), ('epoch', '7')")
    connection.execute("INSERT INTO collections VALUES (1, 'default', 'internal', 4)")
    cuts = {1: [(0, CUT - 2), (CUT, len(TEXT))], 5: [(0, len(TEXT))]}
    chunk, window = (1 << SHIFT) + 1, 1
    for key, spans in cuts.items():
        connection.execute(
            "INSERT INTO documents VALUES (?, ?, 1, ?, 'text', 'Title', 'sha', ?, NULL, 2.0)",
            (key, f"doc-{key}", f"name {key}", len(TEXT)),
        )
        connection.execute("INSERT INTO texts VALUES (?, 0, ?)", (key, TEXT))
        for at, (start, end) in enumerate(spans):
            connection.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, 'Top\nSub', NULL, 9, ?)",
                (chunk, key, start, end, TEXT[start:end]),
            )
            half = direction(key * 10 + at)[0].astype("<f2").tobytes()
            connection.execute("INSERT INTO sentences VALUES (?, ?, ?, ?)", (key, start, end, half))
            for row in direction(key * 10 + at, at + 1):
                connection.execute("INSERT INTO windows VALUES (?, ?)", (window, chunk))
                connection.execute("INSERT INTO vectors VALUES (?, 1, ?, ?)", (window, chunk, row.tobytes()))
                window += 1
            chunk += 1
    connection.execute("COMMIT")
    connection.close()


def test_a_file_of_schema_1_opens_with_all_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    first_schema(path)
    index = Index.open(path, embedder="test")
    report = index.report()
    assert (report.documents, report.chunks, report.windows, report.sentences, report.epoch) == (2, 3, 4, 3, 7)
    assert report.coverage == 1.0
    assert [(one.id, one.chunks, one.date, one.tags) for one in index.documents()] == [
        ("doc-1", 2, None, []),
        ("doc-5", 1, None, []),
    ]
    assert index.text("doc-1") == TEXT
    assert len(index.matching(everything(index), '"bolts"', 10)) == 2
    best = next(iter(index.nearest(everything(index), direction(11, 2)[1], 4)))
    assert index.chunks([best])[0].text == TEXT[CUT:]
    assert index.rarity(["alarm"]) == (3, {"alarm": 2})
    index.close()
    connection = connect(path)
    assert version(connection) == MIGRATIONS[-1].number
    connection.close()


def test_what_a_file_of_schema_1_has_embedded_is_known_where_its_stretch_is(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    first_schema(path)
    index = Index.open(path, embedder="test")
    known = index.known("default", "name 1")
    # Which part of the second chunk each of its two windows read was not noted.
    assert set(known.chunks) == {chunk_digest(("Top", "Sub"), TEXT[: CUT - 2])}
    (found,) = known.chunks.values()
    assert found.spans == [(0, CUT - 2)]
    assert np.array_equal(found.rows, direction(10))
    assert len(known.sentences) == 2
    index.close()


def test_documents_of_schema_1_can_be_labelled_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    first_schema(path)
    index = Index.open(path, embedder="test")
    index.label("doc-1", tags=["old"], date="2020-01-01")
    assert index.scope("default", Filter(tags=["old"])) == index.scope("default", Filter(documents=["name 1"]))
    index.add(written("name 1", "new words"))
    assert index.remove("doc-5") == {"chunks": 1, "vectors": 1, "sentences": 1}
    assert index.matching(everything(index), '"bolts"', 10) == {}
    assert (index.report().documents, index.report().windows) == (1, 2)
    index.close()


def test_a_migration_that_is_interrupted_leaves_the_older_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    first_schema(path)
    connection = connect(path)

    def interrupted(connection: apsw.Connection, width: int) -> None:
        MIGRATIONS[1].apply(connection, width)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(
            connection, "x", width=384, now=2.0, migrations=(MIGRATIONS[0], Migration(2, "interrupted", interrupted))
        )
    assert version(connection) == 1
    connection.close()
    index = Index.open(path, embedder="test")
    assert index.report().chunks == 3
    index.close()


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
    connection = connect(":memory:")
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

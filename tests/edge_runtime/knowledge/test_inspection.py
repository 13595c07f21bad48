"""Files that claim to be artifacts: what is not ours to the letter is refused, and nothing in it is ever executed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import StorageError
from edge_runtime.knowledge.frozen import open_frozen
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.inspection import inspect
from edge_runtime.knowledge.search import search
from tests.edge_runtime.knowledge.artifacts import EMBEDDER, assert_refused, forge, make
from tests.edge_runtime.knowledge.conftest import direction


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("artifacts") / "honest.index", collections=("pumps", "valves"))


@pytest.fixture
def file(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(honest, tmp_path / "file.index"))


def test_an_honest_file_is_told_whole(honest: Path) -> None:
    found = inspect(honest)
    data = honest.read_bytes()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.header.embedder, found.header.width, found.header.documents) == (EMBEDDER, 384, 4)
    assert inspect(honest, sha256=found.sha256) == found


def test_a_forger_who_changes_nothing_is_believed(file: Path) -> None:
    forge(file)
    assert inspect(file).header.documents == 4


# ---- files that are something else ---------------------------------------------------------------------------------


def test_what_is_no_plain_file_is_refused_and_not_waited_for(honest: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(honest)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("SQLite is mentioned here", "utf-8")
    for name, match in (
        ("link", "is a link"),
        ("pipe", "is no plain file"),
        ("folder", "is no plain file"),
        ("empty", "is empty"),
        ("text", "is no index"),
        ("missing", "cannot be read"),
    ):
        with pytest.raises(StorageError, match=match):
            inspect(tmp_path / name)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "plain"))) as connection:
        connection.execute("CREATE TABLE meta (key, value); INSERT INTO meta VALUES ('artifact', '{}')")
    assert_refused(tmp_path / "plain", match="something else")


def test_an_index_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    Index.open(tmp_path / "index.db", embedder=EMBEDDER).close()
    assert_refused(tmp_path / "index.db", match="edge index export")


# ---- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(file: Path, share: float) -> None:
    os.truncate(file, int(file.stat().st_size * share))
    assert_refused(file, match=r"is damaged|something else")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_lies_where_nobody_reads(honest: Path, place: float, bit: int) -> None:
    data = bytearray(honest.read_bytes())
    at = int(place * len(data))
    data[at] ^= 1 << bit
    file = honest.with_name("flipped.index")
    file.write_bytes(data)
    with pytest.raises(StorageError, match=r"is not the file that was meant|is no index"):
        inspect(file, sha256=inspect(honest).sha256)
    try:
        found = inspect(file)
    except StorageError:
        return
    assert found.header == inspect(honest).header


def test_a_text_that_is_no_utf_8_is_refused(file: Path) -> None:
    file.chmod(0o600)
    with closing(apsw.Connection(str(file))) as connection:
        connection.execute("UPDATE documents SET name = CAST(x'ff41' AS TEXT) WHERE key = 1")
    assert_refused(file, match="is damaged")


def test_another_file_than_the_one_that_was_meant_is_refused(file: Path) -> None:
    with pytest.raises(StorageError, match="get the file again"):
        inspect(file, sha256="0" * 64)


# ---- other versions ------------------------------------------------------------------------------------------------


def test_a_newer_or_older_schema_and_a_newer_format_are_refused_with_the_way_out(file: Path) -> None:
    forge(file, header={"format": 2})
    assert_refused(file, match="newer version .artifact format 2")
    forge(file, "PRAGMA user_version = 99", header={"format": 1})
    assert_refused(file, match="newer version .schema 99.*export the index with this one")
    forge(file, "PRAGMA user_version = 1")
    assert_refused(file, match="older version.*export the index")


# ---- forgeries -----------------------------------------------------------------------------------------------------

ATTACK = "UPDATE documents SET name = 'owned'"


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE TRIGGER attack AFTER INSERT ON chunks BEGIN {ATTACK}; END",
        f"CREATE TRIGGER attack BEFORE DELETE ON chunks BEGIN {ATTACK}; END",
        "CREATE VIEW attack AS SELECT load_extension('/tmp/attack.so')",
        "CREATE TABLE attack (a)",
        "CREATE INDEX attack ON documents (name)",
        "CREATE VIRTUAL TABLE attack USING fts5 (text)",
        "CREATE VIRTUAL TABLE attack USING fts5vocab (chunk_terms, 'row')",
        "DROP TRIGGER chunks_deleted",
        "ALTER TABLE chunks ADD COLUMN attack AS (load_extension('/tmp/attack.so'))",
        "DROP INDEX chunks_by_document",
        "UPDATE sqlite_schema SET sql = replace(sql, 'chunk_size = 256', 'chunk_size = 8') WHERE name = 'vectors'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'float[384]', 'float[383]') WHERE name = 'vectors'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'float[384]', 'float[9999]') WHERE name = 'vectors'",
        "DROP TABLE documents; CREATE VIEW documents AS SELECT 1 AS key, 'doc-1' AS id",
        "DROP TABLE meta; CREATE VIEW meta AS SELECT 'artifact' AS key, '{}' AS value",
    ],
)
def test_a_schema_that_is_not_ours_to_the_letter_is_refused(file: Path, statement: str) -> None:
    if "meta" in statement or "documents;" in statement:
        file.chmod(0o600)
        with closing(apsw.Connection(str(file))) as connection:
            connection.execute(statement)
    elif "UPDATE sqlite_schema" in statement:
        forge(file)
        with closing(apsw.Connection(str(file))) as connection:
            connection.pragma("writable_schema", True)
            connection.execute(statement)
    else:
        forge(file, statement)
    assert_refused(file, match=r"holds tables, views or triggers|is damaged")


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE documents SET characters = 'many' WHERE key = 1", "documents.characters holds a value"),
        ("UPDATE documents SET name = x'00ff' WHERE key = 1", "documents.name holds a value"),
        ("UPDATE chunks SET start = -5 WHERE start = 0", "ends before it begins"),
        ('UPDATE sentences SET "end" = -1 WHERE start > 0', "ends before it begins"),
        ("UPDATE sentences SET vector = x'0011'", "another width"),
        ("UPDATE sentences SET document = 777 WHERE document = 1", "is not there"),
        ("UPDATE documents SET collection = 3 - collection, name = name || collection", "another collection"),
        ("UPDATE collections SET name = 'UPPER CASE' WHERE id = 1", "do not agree"),
        ("UPDATE collections SET sensitivity = 'public' WHERE id = 1", "do not agree"),
        ("INSERT INTO collections (name) VALUES ('more')", "do not agree"),
        ("INSERT INTO meta VALUES ('more', '1')", "do not agree"),
        ("INSERT INTO meta VALUES ('setting search.pumps.base', 'nan')", "no number"),
        ("INSERT INTO meta VALUES ('setting search.pumps.base', 'words')", "could not convert"),
        ("UPDATE meta SET value = 'other@2/384' WHERE key = 'embedder'", "do not agree"),
        ("UPDATE meta SET value = 'x' WHERE key = 'epoch'", "do not agree"),
        ("UPDATE vectors_chunks SET size = 100000", "another size"),
        ("UPDATE vectors_chunks SET validity = x'ff'", "another size"),
        ("UPDATE vectors_chunks SET rowids = zeroblob(8)", "another size"),
        ("UPDATE vectors_chunks SET partition00 = 'one'", "another size"),
        ("UPDATE vectors_chunks SET partition00 = 7", "of no passage"),
        ("UPDATE vectors_vector_chunks00 SET vectors = x'0011'", "another size"),
        ("UPDATE vectors_vector_chunks00 SET vectors = zeroblob(length(vectors))", "not of length 1"),
        ("DELETE FROM vectors_vector_chunks00", "another size"),
        ("UPDATE vectors_rowids SET chunk_offset = 256", "in no block"),
        ("UPDATE vectors_rowids SET chunk_id = 99", "in no block"),
        ("UPDATE vectors_auxiliary SET value00 = 5", "of no passage"),
        ("DELETE FROM windows WHERE id = 1", "of no passage"),
    ],
)
def test_rows_that_readers_do_not_count_on_are_refused(file: Path, statement: str, match: str) -> None:
    forge(file, statement)
    assert_refused(file, match=match)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"collections": []}, "is damaged"),
        ({"collections": [{"name": "../etc", "sensitivity": "public", "documents": 1}]}, "is damaged"),
        ({"width": 16}, "do not agree"),
        ({"embedder": "other@2"}, "do not agree"),
        ({"created": "yesterday"}, "is damaged"),
        ({"created": "2031-99-99"}, "is damaged"),
        ({"digest": "0" * 64}, "do not give the digest"),
        ({"format": "one"}, "is damaged"),
    ],
)
def test_a_header_that_lies_is_refused(file: Path, header: dict[str, object], match: str) -> None:
    forge(file, header=header)
    assert_refused(file, match=match)


@pytest.mark.parametrize("text", ["[]", "null", "{", "[" * 100_000, '"words"'])
def test_a_header_that_is_no_object_is_refused(file: Path, text: str) -> None:
    file.chmod(0o600)
    with closing(apsw.Connection(str(file))) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'artifact'", (text,))
    assert_refused(file, match="is damaged")


def test_a_mounted_file_can_do_nothing_but_read(file: Path) -> None:
    index = open_frozen(file, embedder=EMBEDDER, width=384)
    assert search(index, "alarm E1", direction(1)[0], collection="pumps", k=3)
    with index.database.reading() as connection:
        for statement in (
            "ATTACH '/tmp/other.db' AS other",
            "UPDATE documents SET name = 'x'",
            "CREATE TEMP TABLE t (a)",
            "PRAGMA writable_schema = on",
            "PRAGMA temp_store_directory = '/tmp'",
            "INSERT INTO chunk_terms (chunk_terms) VALUES ('rebuild')",
        ):
            with pytest.raises(apsw.Error):
                connection.execute(statement)
    with pytest.raises(StorageError, match="only be read"):
        index.remove(index.documents()[0].id)


@pytest.mark.parametrize("table", ["chunk_terms_data", "chunk_terms_idx", "chunk_terms_docsize"])
def test_a_full_text_index_that_was_forged_breaks_nothing_but_itself(file: Path, table: str) -> None:
    """FTS5 checks what it reads; what it then says is an error of this file alone."""
    column = {"chunk_terms_data": "block", "chunk_terms_idx": "pgno", "chunk_terms_docsize": "sz"}[table]
    value = "12345678" if column == "pgno" else "randomblob(length(" + column + "))"
    forge(file, f"UPDATE {table} SET {column} = {value}")
    try:
        header = inspect(file).header
    except StorageError:
        return
    index = open_frozen(file, embedder=header.embedder, width=header.width)
    for text in ("alarm E1", "pump", "low pressure hums"):
        with contextlib.suppress(StorageError):
            search(index, text, None, collection="pumps", mode="lexical")

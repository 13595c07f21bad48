"""The knowledge database's schema as numbered migrations; knows nothing of what the rows mean.

``PRAGMA user_version`` holds the last number applied, the table ``migrations`` says when. A file from a newer version
is refused, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw

from edge_runtime.errors import StorageError
from edge_runtime.knowledge.digests import count_visible, stored_digest

# A chunk's rowid is collection << SHIFT | number: one range of rowids is one collection, in FTS5 too.
SHIFT = 40
SLOTS = 256  # vectors that vec0 keeps together


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    apply: Callable[[apsw.Connection, int], None]  # connection, vector width


_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE collections (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sensitivity TEXT NOT NULL DEFAULT 'internal'
        CHECK (sensitivity IN ('public', 'internal', 'confidential', 'secret')),
    next_chunk INTEGER NOT NULL DEFAULT 1  -- numbers are not used twice
);
CREATE TABLE readers (
    collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('uid', 'gid')),
    number INTEGER NOT NULL,
    PRIMARY KEY (collection, kind, number)
) WITHOUT ROWID;

CREATE TABLE documents (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    collection INTEGER NOT NULL REFERENCES collections (id),
    name TEXT NOT NULL,
    format TEXT NOT NULL,
    title TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    characters INTEGER NOT NULL,
    pages INTEGER,
    added REAL NOT NULL,  -- Unix seconds
    UNIQUE (collection, name)
);
-- The text in parts, so that a citation does not read a whole book.
CREATE TABLE texts (
    document INTEGER NOT NULL REFERENCES documents (key),
    start INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (document, start)
);

CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES documents (key),
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    heading TEXT NOT NULL,  -- the path, outermost first, joined by newlines
    page INTEGER,
    tokens INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX chunks_by_document ON chunks (document, start);

CREATE TABLE sentences (
    document INTEGER NOT NULL REFERENCES documents (key),
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    vector BLOB NOT NULL,  -- float16, unit length
    PRIMARY KEY (document, start)
) WITHOUT ROWID;

CREATE TABLE windows (
    id INTEGER PRIMARY KEY,  -- rowid of vectors
    chunk INTEGER NOT NULL REFERENCES chunks (id)
);
CREATE INDEX windows_by_chunk ON windows (chunk);

CREATE VIRTUAL TABLE chunk_terms USING fts5 (
    text, heading, content = 'chunks', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO chunk_terms (chunk_terms, rank) VALUES ('secure-delete', 1);
CREATE VIRTUAL TABLE chunk_vocabulary USING fts5vocab ('chunk_terms', 'row');
CREATE TRIGGER chunks_inserted AFTER INSERT ON chunks BEGIN
    INSERT INTO chunk_terms (rowid, text, heading) VALUES (new.id, new.text, new.heading);
END;
CREATE TRIGGER chunks_deleted BEFORE DELETE ON chunks BEGIN
    INSERT INTO chunk_terms (chunk_terms, rowid, text, heading)
    VALUES ('delete', old.id, old.text, old.heading);
END;
"""


def create_vectors(connection: apsw.Connection, width: int) -> None:
    # Unit vectors under L2 order as under cosine, and vec0's L2 loop is the fast one. A partition per collection keeps
    # other collections out before the nearest are chosen.
    connection.execute(
        "CREATE VIRTUAL TABLE vectors USING vec0 (window INTEGER PRIMARY KEY, collection INTEGER PARTITION KEY,"
        f" +chunk INTEGER, embedding float[{int(width)}], chunk_size = {SLOTS})"
    )


def _first(connection: apsw.Connection, width: int) -> None:
    connection.execute(_TABLES)
    create_vectors(connection, width)


_DETAILS = """
ALTER TABLE documents ADD COLUMN date TEXT;  -- YYYY-MM-DD
-- Counted once, when the document is stored: lists and reports read no other table.
ALTER TABLE documents ADD COLUMN chunks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE documents ADD COLUMN windows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE documents ADD COLUMN sentences INTEGER NOT NULL DEFAULT 0;
ALTER TABLE documents ADD COLUMN visible INTEGER NOT NULL DEFAULT 0;  -- characters that are not white space
ALTER TABLE documents ADD COLUMN embedded INTEGER NOT NULL DEFAULT 0;  -- of those, in a window that was embedded
CREATE TABLE tags (
    document INTEGER NOT NULL REFERENCES documents (key),
    tag TEXT NOT NULL,
    PRIMARY KEY (document, tag)
) WITHOUT ROWID;

ALTER TABLE chunks ADD COLUMN digest BLOB NOT NULL DEFAULT x'';  -- of heading path and text
-- The stretch of the chunk that the vector was made from; NULL: not noted.
ALTER TABLE windows ADD COLUMN start INTEGER;
ALTER TABLE windows ADD COLUMN "end" INTEGER;
UPDATE windows SET start = 0, "end" = (SELECT k."end" - k.start FROM chunks AS k WHERE k.id = chunk)
    WHERE chunk IN (SELECT chunk FROM windows GROUP BY chunk HAVING count(*) = 1);
UPDATE documents SET
    chunks = (SELECT count(*) FROM chunks WHERE document = key),
    windows = (SELECT count(*) FROM windows AS w JOIN chunks AS k ON k.id = w.chunk WHERE k.document = key),
    sentences = (SELECT count(*) FROM sentences WHERE document = key);

-- Numbers are not used twice: whoever holds an old one finds nothing instead of something else.
INSERT INTO meta VALUES ('next_document', (SELECT coalesce(max(key), 0) + 1 FROM documents));
INSERT INTO meta VALUES ('next_window', (SELECT coalesce(max(id), 0) + 1 FROM windows));
CREATE VIRTUAL TABLE chunk_instances USING fts5vocab ('chunk_terms', 'instance');
DROP TABLE chunk_vocabulary;
"""


def _second(connection: apsw.Connection, _width: int) -> None:
    connection.execute(_DETAILS)
    # Who wrote schema 1 embedded every chunk whole, in windows that overlap.
    documents: Any = connection.execute("SELECT key FROM documents").fetchall()
    for (key,) in documents:
        texts: Any = connection.execute("SELECT text FROM texts WHERE document = ?", (key,))
        visible = sum(count_visible(text) for (text,) in texts)
        embedded, reached = 0, 0
        digests: list[tuple[bytes, int]] = []
        rows: Any = connection.execute(
            'SELECT id, start, "end", heading, text, (SELECT count(*) FROM windows WHERE chunk = k.id)'
            " FROM chunks AS k WHERE document = ? ORDER BY start",
            (key,),
        )
        for chunk, start, end, heading, text, windows in rows:
            digests.append((stored_digest(heading, text), chunk))
            if windows and end > reached:
                embedded += count_visible(text[max(reached - start, 0) :])
                reached = end
        connection.executemany("UPDATE chunks SET digest = ? WHERE id = ?", digests)
        connection.execute("UPDATE documents SET visible = ?, embedded = ? WHERE key = ?", (visible, embedded, key))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "documents, chunks, vectors and terms", _first),
    Migration(2, "digests, dates, tags and what is embedded", _second),
)


def version(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def last_applied(connection: apsw.Connection) -> int:
    """The number of the last migration, by the table that lists them; 0 in a new file."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
        return 0
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM migrations").get)


def refuse_newer(connection: apsw.Connection, path: str, newest: int = MIGRATIONS[-1].number) -> None:
    """Raises StorageError: the file's schema is from a newer version of this program."""
    if version(connection) > newest:
        raise StorageError(
            f"{path} was written by a newer version (schema {version(connection)}, this one knows {newest}): "
            "install that version again, or restore a backup made before the upgrade"
        )


def migrate(
    connection: apsw.Connection, path: str, *, width: int, now: float, migrations: tuple[Migration, ...] = MIGRATIONS
) -> list[int]:
    """Bring the file to the newest schema, each step in a transaction of its own; the numbers that were applied.

    Raises:
        StorageError: the file is from a newer version of this program.
    """
    refuse_newer(connection, path, migrations[-1].number)
    applied: list[int] = []
    for migration in migrations:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read inside the transaction: another process may have migrated meanwhile.
            if version(connection) < migration.number:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS migrations"
                    " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, at REAL NOT NULL)"
                )
                migration.apply(connection, width)
                connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", (migration.number, migration.name, now))
                connection.pragma("user_version", migration.number)
                applied.append(migration.number)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return applied

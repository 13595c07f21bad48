"""Whether a file is an index artifact that can be trusted to be read: a function of its path, which executes nothing.

What comes from elsewhere is hostile until shown otherwise: the schema must be ours to the letter before any module is
loaded, and all rows must be of the types and sizes that readers count on, and give the digest that the header names
(sqlite.org/security.html). The digest has no key: it tells damage, not who made the file.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import apsw
import msgspec
import numpy as np
import sqlite_vec
from msgspec import Meta

from edge_runtime.errors import StorageError
from edge_runtime.knowledge import schema
from edge_runtime.knowledge.lookup import SETTING
from edge_runtime.knowledge.schema import SHIFT, SLOTS
from edge_runtime.knowledge_protocol import Date
from edge_runtime.protocol import CollectionName, Sensitivity

FORMAT = 1
HEADER = "artifact"  # the key in `meta`
WIDEST = 8192  # numbers of a vector, as in sqlite-vec
_MAGIC = b"SQLite format 3\0"
_BLOCK = 2**20
_WIDTH = re.compile(r"float\[(\d{1,4})\]")
_KEYS = frozenset({HEADER, "embedder", "epoch", "next_document", "next_window"})
_LONGEST = 64 * 2**20  # bytes of one value
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
_STORAGE = {
    "INTEGER": {"integer"},
    "REAL": {"real", "integer"},
    "TEXT": {"text"},
    "BLOB": {"blob"},
}
_LENGTHS = 1e-2  # a stored vector is a unit vector to this
_READING = frozenset(
    {
        apsw.SQLITE_SELECT,
        apsw.SQLITE_READ,
        apsw.SQLITE_FUNCTION,
        apsw.SQLITE_RECURSIVE,
        apsw.SQLITE_TRANSACTION,
    }
)
_PRAGMAS = frozenset({"page_count", "page_size", "freelist_count", "data_version", "user_version"})


# What must not be true of the rows, and a statement that finds those of which it is.
_FALSEHOODS = {
    "a vector of a sentence has another width": "SELECT 1 FROM sentences WHERE length(vector) != 2 * :width",
    "a passage is in another collection than its document": """
        SELECT 1 FROM chunks AS k JOIN documents AS d ON d.key = k.document WHERE k.id >> :shift != d.collection""",
    "a passage ends before it begins": """
        SELECT 1 FROM chunks WHERE NOT (0 <= start AND start <= "end")
        UNION ALL SELECT 1 FROM sentences WHERE NOT (0 <= start AND start <= "end")""",
    # vec0 reads these rows as memory.
    "a block of vectors has another size": """
        SELECT 1 FROM vectors_chunks AS c LEFT JOIN vectors_vector_chunks00 AS v ON v._rowid_ = c.chunk_id
        WHERE c.size IS NOT :slots OR typeof(c.partition00) != 'integer' OR v.rowid IS NOT c.chunk_id
        OR typeof(c.validity) != 'blob' OR length(c.validity) != :slots / 8
        OR typeof(c.rowids) != 'blob' OR length(c.rowids) != :slots * 8
        OR v.vectors IS NULL OR typeof(v.vectors) != 'blob' OR length(v.vectors) != :slots * 4 * :width""",
    "a vector is in no block": """
        SELECT 1 FROM vectors_rowids AS r LEFT JOIN vectors_chunks AS c ON c.chunk_id = r.chunk_id
        WHERE c.chunk_id IS NULL OR typeof(r.chunk_offset) != 'integer'
        OR NOT (0 <= r.chunk_offset AND r.chunk_offset < :slots)""",
    "a vector is of no passage": """
        SELECT 1 FROM windows AS w LEFT JOIN vectors_rowids AS r ON r.rowid = w.id
        LEFT JOIN vectors_chunks AS c ON c.chunk_id = r.chunk_id
        LEFT JOIN vectors_auxiliary AS a ON a.rowid = w.id
        WHERE c.partition00 IS NOT w.chunk >> :shift OR a.value00 IS NOT w.chunk
        UNION ALL SELECT 1 WHERE (SELECT count(*) FROM windows) != (SELECT count(*) FROM vectors_rowids)""",
}


class HeldCollection(msgspec.Struct, frozen=True, kw_only=True):
    name: CollectionName
    sensitivity: Sensitivity
    documents: Annotated[int, Meta(ge=0)]


class _Format(msgspec.Struct, frozen=True):
    format: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact says of itself, as JSON in its `meta` table."""

    format: Annotated[int, Meta(ge=1)]
    program: Annotated[str, Meta(max_length=100)]  # the version that wrote it
    created: Date
    embedder: Annotated[str, Meta(min_length=1, max_length=2000)]  # name and digest of the model, and how it is used
    width: Annotated[int, Meta(ge=1, le=WIDEST)]
    collections: Annotated[list[HeldCollection], Meta(min_length=1, max_length=64)]
    documents: Annotated[int, Meta(ge=0)]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]  # of every row but this


@dataclass(frozen=True, slots=True)
class Inspected:
    header: Header
    sha256: str
    size: int  # bytes


def inspect(path: Path, *, sha256: str | None = None) -> Inspected:
    """Read the whole of ``path`` and say what it holds. The file is never written to.

    Raises:
        StorageError: it is missing, a link, damaged, not the file with this ``sha256``, no artifact, or from another
            version of this program; the message says what to do.
    """
    size, found = _digest(path)
    if sha256 is not None and found != sha256:
        raise StorageError(
            f"{path.name} is not the file that was meant: its SHA-256 is {found}, not {sha256}; get the file again"
        )
    with _told(path), closing(_open(path)) as connection:
        width = _check_schema(connection, path)
        prepare(connection)
        header = _read_header(connection, path)
        if header.width != width:
            raise ValueError("its header and its tables do not agree")
        _check_rows(connection, header)
    return Inspected(header, found, size)


def _digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file that is no link, pipe or folder."""
    state = hashlib.sha256()
    try:
        # Opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StorageError(f"{path.name} is no plain file; put the index itself there, not a link to it")
        with os.fdopen(descriptor, "rb") as file:
            size = 0
            while block := file.read(_BLOCK):
                if not size and not block.startswith(_MAGIC):
                    raise StorageError(f"{path.name} is no index; name a file that edge index export wrote")
                size += len(block)
                state.update(block)
    except OSError as error:
        if path.is_symlink():
            raise StorageError(f"{path.name} is a link; put the index itself there, not a link to it") from error
        raise StorageError(f"{path.name} cannot be read ({error.strerror}); mount the file again") from error
    if not size:
        raise StorageError(f"{path.name} is empty; get the file again")
    return size, state.hexdigest()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite, or a row that is not what it should be, says of a damaged file."""
    try:
        yield
    except (apsw.Error, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StorageError(f"{path.name} is damaged ({str(error)[:200]}); get the file again") from error


def _open(path: Path) -> apsw.Connection:
    """Reading only, and without any module of ours: the schema is not known yet."""
    connection = apsw.Connection(
        f"file:{quote(os.fspath(path.parent.resolve() / path.name))}?immutable=1",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW,
    )
    try:
        confine(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def confine(connection: apsw.Connection) -> None:
    """Settings for a file that was made elsewhere."""
    for option, on in (
        (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
        (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    ):
        connection.config(option, on)
    connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, _LONGEST)
    connection.pragma("cell_size_check", True)
    connection.pragma("mmap_size", 0)  # a file that is cut short meanwhile is an error then, not a signal
    connection.pragma("temp_store", "memory")


def prepare(connection: apsw.Connection) -> None:
    """Load sqlite-vec, once the schema is known to be ours."""
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)


def only_reading(operation: int, first: str | None, *_: str | None) -> int:
    """An SQLite authorizer: SELECT, and the few PRAGMAs that tell a size."""
    if operation == apsw.SQLITE_PRAGMA:
        return int(apsw.SQLITE_OK if first in _PRAGMAS else apsw.SQLITE_DENY)
    return int(apsw.SQLITE_OK if operation in _READING else apsw.SQLITE_DENY)


def reference(width: int) -> apsw.Connection:
    """An empty index in memory: what the schema must be."""
    connection = apsw.Connection(":memory:")
    prepare(connection)
    schema.migrate(connection, ":memory:", width=width, now=0.0)
    return connection


def _check_schema(connection: apsw.Connection, path: Path) -> int:
    """The width of its vectors. Raises StorageError: the schema is not, to the letter, that of this version."""
    found: Any = connection.execute(_SCHEMA).fetchall()
    newest, version = schema.MIGRATIONS[-1].number, schema.version(connection)
    if not any(name == "meta" for _, name, *_ in found) or version < 1:
        raise StorageError(f"{path.name} is an SQLite file of something else; name a file that edge index export wrote")
    if version > newest:
        raise StorageError(
            f"{path.name} was written by a newer version (schema {version}, this one knows {newest}); "
            "install that version, or export the index with this one"
        )
    if version < newest:
        raise StorageError(
            f"{path.name} was written by an older version (schema {version}, this one needs {newest}); "
            "export the index with this version"
        )
    widths = [_WIDTH.search(sql or "") for kind, name, _, sql in found if (kind, name) == ("table", "vectors")]
    width = int(widths[0].group(1)) if widths and widths[0] is not None else 0
    if 1 <= width <= WIDEST:
        with closing(reference(width)) as ours:
            if ours.execute(_SCHEMA).fetchall() == found:
                return width
    raise StorageError(
        f"{path.name} holds tables, views or triggers that no export of this version has, so it was changed or written "
        "by another program; export the index again"
    )


def _read_header(connection: apsw.Connection, path: Path) -> Header:
    """Raises StorageError: there is none (an index, but no artifact), or one from a newer version."""
    rows: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
    text = rows.get(HEADER)
    if text is None:
        raise StorageError(f"{path.name} is an index, and not one that was exported; write one with edge index export")
    number = msgspec.json.decode(text, type=_Format).format
    if number > FORMAT:
        raise StorageError(
            f"{path.name} was written by a newer version (artifact format {number}, this one knows {FORMAT}); "
            "install that version"
        )
    header = msgspec.json.decode(text, type=Header)
    date.fromisoformat(header.created)
    unknown = [key for key in rows if key not in _KEYS and not key.startswith(SETTING)]
    if (
        unknown
        or rows.get("embedder") != f"{header.embedder}/{header.width}"
        or any(not rows.get(key, "").isdecimal() for key in ("epoch", "next_document", "next_window"))
    ):
        raise ValueError("its header and its rows do not agree")
    for key, value in rows.items():
        if key.startswith(SETTING) and not math.isfinite(float(value)):
            raise ValueError("a setting is no number")
    held = connection.execute(
        "SELECT c.name, c.sensitivity, (SELECT count(*) FROM documents AS d WHERE d.collection = c.id)"
        " FROM collections AS c ORDER BY c.name"
    ).fetchall()
    if held != [(one.name, one.sensitivity, one.documents) for one in header.collections]:
        raise ValueError("its header and its rows do not agree")
    return header


def _check_rows(connection: apsw.Connection, header: Header) -> None:
    """Raises ValueError or apsw.Error: something in it is not what readers count on."""
    finding = connection.pragma("quick_check")
    if finding != "ok":
        raise ValueError(str(finding).replace("\n", "; "))
    if connection.pragma("foreign_key_check") is not None:
        raise ValueError("a row belongs to one that is not there")
    with closing(reference(header.width)) as ours:
        for table in tables(ours, "table"):
            _check_types(connection, ours, table)
    given = {"width": header.width, "shift": SHIFT, "slots": SLOTS}
    for what, statement in _FALSEHOODS.items():
        if connection.execute(statement, given).fetchone() is not None:
            raise ValueError(what)
    _check_vectors(connection, header.width)
    if content_digest(connection) != header.digest:
        raise ValueError("its rows do not give the digest that its header names")


def tables(connection: apsw.Connection, *kinds: str) -> list[str]:
    """Names of the tables of these kinds (``table``, ``shadow``, ``virtual``), in order; SQLite's own left out."""
    rows: Any = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name")
    # sqlite-vec 0.1.9 does not tell SQLite of all its own.
    return [
        name
        for name, kind in rows.fetchall()
        if ("shadow" if name.startswith("vectors_") else kind) in kinds and not name.startswith("sqlite_")
    ]


def columns(connection: apsw.Connection, table: str) -> list[tuple[str, str, bool]]:
    """Of each column its name, its declared type and whether it may be NULL."""
    rows: Any = connection.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table,)).fetchall()
    return [(name, kind, not required and not key) for name, kind, required, key in rows]


def _check_types(connection: apsw.Connection, ours: apsw.Connection, table: str) -> None:
    """SQLite keeps any type in any column; readers do not expect that."""
    for name, kind, empty in columns(ours, table):
        allowed = _STORAGE[kind] | ({"null"} if empty else set())
        listed = ", ".join(f"'{one}'" for one in sorted(allowed))
        wrong = f"""typeof("{name}") NOT IN ({listed})"""
        # Names of our own schema, here and below.
        if connection.execute(f'SELECT 1 FROM "{table}" WHERE {wrong} LIMIT 1').fetchone() is not None:  # noqa: S608
            raise ValueError(f"{table}.{name} holds a value of another type")


def _check_vectors(connection: apsw.Connection, width: int) -> None:
    """Raises ValueError: a vector that is used is no unit vector."""
    rows: Any = connection.execute(
        "SELECT c.validity, v.vectors FROM vectors_chunks AS c"
        " JOIN vectors_vector_chunks00 AS v ON v.rowid = c.chunk_id"
    )
    for validity, blob in rows:
        used = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little").astype(bool)
        table = np.frombuffer(blob, "<f4").reshape(-1, width)[used]
        lengths = np.einsum("ij,ij->i", table, table)
        if not np.all(np.abs(lengths - 1.0) < _LENGTHS):  # also false for what is no number
            raise ValueError("a vector is not of length 1")


def content_digest(connection: apsw.Connection) -> str:
    """BLAKE2b-256 (RFC 7693) of every row of every stored table but the header, those of FTS5 and vec0 included.

    The same documents, exported by the same version, give the same digest, whenever and wherever that is done.
    """
    state = hashlib.blake2b(digest_size=32)
    encoder = msgspec.msgpack.Encoder()
    for table in tables(connection, "table", "shadow"):
        state.update(encoder.encode(table))
        where = f" WHERE key != '{HEADER}'" if table == "meta" else ""
        statement = f'SELECT * FROM "{table}"{where} ORDER BY {_order(connection, table)}'  # noqa: S608
        rows: Any = connection.execute(statement)
        for row in rows:
            state.update(encoder.encode(row))
    return state.hexdigest()


def _order(connection: apsw.Connection, table: str) -> str:
    """The primary key: tables are stored in its order."""
    rows: Any = connection.execute(
        "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)
    ).fetchall()
    return ", ".join(f'"{name}"' for (name,) in rows) or "rowid"

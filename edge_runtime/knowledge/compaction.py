"""Gives back the space of what was deleted: a little after each deletion, all of it when asked.

Every step is a transaction that changes no row as readers see it: a process killed between two leaves a whole index.
"""

from __future__ import annotations

import apsw

from edge_runtime.knowledge import rows, vector_table
from edge_runtime.knowledge.database import Database
from edge_runtime.knowledge.storing import TERMS_REMOVED

_SLACK = 0.1  # unused vector slots, as a share of those in use, that are left alone after a deletion
_BLOCKS = 8  # of vectors, moved in one transaction
_TERMS_SLACK = 0.25  # characters removed, as a share of those there, before the full-text index is merged
_PAGES = 1000  # of the full-text index, merged in one transaction
_MERGING = "terms_merging"
_TERM_BYTES = 0.5  # of the full-text index, for a character of text
_WORTH = 0.1  # of the file: less is not worth compacting
_LEAST = 2**20  # bytes
_SEGMENTS = 8  # of the full-text index, that are few
_WHOLE = 64  # times a document's length: an index up to here is merged before the document is deleted


def settle(database: Database) -> None:
    """After a deletion: give back what can be had at a bounded cost; the next deletion goes on from there."""
    with database.writing() as connection:
        for block in vector_table.sparse(connection, _SLACK)[:_BLOCKS]:
            vector_table.empty(connection, block)
        if _removed_share(connection) > _TERMS_SLACK:
            _merge(connection)
    database.reclaim()


def prepare(database: Database, characters: int) -> None:
    """Before a deletion of so many characters: FTS5 overwrites each word of each chunk in each of its segments, so that
    with few of them it takes a tenth of the time. Worth it unless the document is a small part of the index."""
    with database.reading() as connection:
        if _count_segments(connection) <= _SEGMENTS or characters * _WHOLE < _count_characters(connection):
            return
    while _step_terms(database):
        pass


def compact(database: Database) -> tuple[int, int]:
    """Give back everything, in steps between which others write; the file's bytes before and after.

    Raises:
        StorageError: the disk has no room for the copy that it takes; nothing is lost.
    """
    before = database.file_bytes
    while _step_vectors(database):
        pass
    while _step_terms(database):
        pass
    database.rewrite()
    return before, database.file_bytes


def free_bytes(connection: apsw.Connection, width: int) -> int:
    """What :func:`compact` would give back, by estimate; reads one small row for each block of vectors."""
    pages = connection.pragma("freelist_count") * connection.pragma("page_size")
    removed = int(rows.meta(connection, TERMS_REMOVED) or 0)
    return int(pages + vector_table.unused(connection) * width * 4 + removed * _TERM_BYTES)


def is_due(database: Database, width: int) -> bool:
    """Whether compacting is worth its while."""
    if not database.settled:
        return True
    with database.reading() as connection:
        free = free_bytes(connection, width)
    return free > max(_LEAST, _WORTH * database.file_bytes)


def _step_vectors(database: Database) -> bool:
    with database.writing() as connection:
        found = vector_table.sparse(connection, 0.0)
        for block in found[:_BLOCKS]:
            vector_table.empty(connection, block)
        return len(found) > _BLOCKS


def _step_terms(database: Database) -> bool:
    with database.writing() as connection:
        return _merge(connection)


def _removed_share(connection: apsw.Connection) -> float:
    removed = int(rows.meta(connection, TERMS_REMOVED) or 0)
    return removed / max(_count_characters(connection), 1)


def _count_characters(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT coalesce(sum(characters), 0) FROM documents").get)


def _count_segments(connection: apsw.Connection) -> int:
    """Of the full-text index: its structure record is a cookie of 4 bytes, the number of levels, and that of segments,
    each a varint (fts5_index.c; a number over 127 is as good as 127)."""
    record: bytes = connection.execute("SELECT block FROM chunk_terms_data WHERE id = 10").get
    return min(record[5], 127)


def _merge(connection: apsw.Connection) -> bool:
    """Merge some more of the full-text index into one part; whether there is more to do (sqlite.org/fts5.html 6.10)."""
    begun = rows.meta(connection, _MERGING) == "1"
    before = connection.total_changes()
    connection.execute(
        "INSERT INTO chunk_terms (chunk_terms, rank) VALUES ('merge', ?)", (_PAGES if begun else -_PAGES,)
    )
    more = connection.total_changes() - before >= 2
    if more != begun:
        rows.set_meta(connection, _MERGING, int(more))
    if not more:
        rows.set_meta(connection, TERMS_REMOVED, 0)
    return more

"""An index as one immutable file: chosen collections written anew, without readers, journals or what was removed.

The rows are written in an order that depends on the documents alone, so the same documents give the same digest, and on
the same day, with the same libraries, the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec

from edge_runtime.errors import NotFoundError, RefusedError, RequestError, StorageError
from edge_runtime.knowledge import schema
from edge_runtime.knowledge.copying import Copying, content_id, text_of
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.inspection import FORMAT, HEADER, Header, HeldCollection, content_digest, prepare
from edge_runtime.knowledge.lookup import SETTING

_BATCH = 64  # documents in one transaction
Told = Callable[[int, int], None]  # documents done, of so many; what it raises ends the work


def write(
    index: Index, target: Path, collections: Sequence[str], *, day: str, program: str, told: Told = lambda *_: None
) -> Header:
    """Write the ``collections`` (none: all that hold a document) of ``index`` to ``target``; ``day`` is YYYY-MM-DD.

    Meanwhile the index can be read and changed; the file holds what was in it at the beginning.

    Raises:
        RefusedError: ``target`` is there.
        RequestError: there is no document to export.
        NotFoundError: there is no such collection.
        StorageError: the disk is full, or the index is damaged; nothing is left behind.
    """
    if os.path.lexists(target):
        raise RefusedError(f"{target.name} is there already; choose another name, or remove it")
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(mode=0o700)
        header = _fill(index, work / "rows", collections, day=day, program=program, told=told)
        with _room(target), closing(_connect(work / "rows")) as rows:
            rows.execute("VACUUM INTO ?", (str(work / "whole"),))
        (work / "whole").chmod(0o400)
        _settle(work / "whole")
        (work / "whole").rename(target)
        _settle(target.parent)
    except OSError as error:
        raise StorageError(
            f"the export could not be written to {target.parent} ({error.strerror or error}); free some space"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return header


@contextmanager
def _room(path: Path) -> Iterator[None]:
    """A disk that is full, or does not take what is written; damage is the source's, and passes."""
    try:
        yield
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        raise StorageError(
            f"the export could not be written to {path.parent} ({error}); free some space and try again"
        ) from error


def _connect(path: Path) -> apsw.Connection:
    """A file that nobody else knows: neither journals nor flushes."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        connection.pragma("journal_mode", "off")
        connection.pragma("synchronous", "off")
        connection.pragma("temp_store", "memory")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _settle(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(index: Index, path: Path, collections: Sequence[str], *, day: str, program: str, told: Told) -> Header:
    with index.database.reading() as source, _room(path), closing(_connect(path)) as target:
        chosen = _choose(source, collections)
        schema.migrate(target, str(path), width=index.width, now=0.0)
        target.execute("BEGIN")
        target.execute("DELETE FROM meta")
        held = _copy(source, target, chosen, told)
        # One segment: the same terms whatever the order in which they came, and the quickest to search.
        target.execute("INSERT INTO chunk_terms (chunk_terms) VALUES ('optimize')")
        _copy_settings(source, target, [name for _, name, _ in chosen])
        target.execute("INSERT INTO meta VALUES ('epoch', '1')")
        target.execute("INSERT INTO meta VALUES ('embedder', ?)", (f"{index.embedder}/{index.width}",))
        target.execute("COMMIT")  # before it FTS5 has not written all that it will
        header = Header(
            format=FORMAT,
            program=program,
            created=day,
            embedder=index.embedder,
            width=index.width,
            collections=held,
            documents=sum(one.documents for one in held),
            digest=content_digest(target),
        )
        target.execute("INSERT INTO meta VALUES (?, ?)", (HEADER, msgspec.json.encode(header).decode()))
    return header


def _choose(source: apsw.Connection, collections: Sequence[str]) -> list[tuple[int, str, str]]:
    """Key, name and sensitivity of each collection to export, by name."""
    rows: Any = source.execute(
        "SELECT id, name, sensitivity, EXISTS (SELECT 1 FROM documents WHERE collection = c.id)"
        " FROM collections AS c ORDER BY name"
    ).fetchall()
    known = {name for _, name, *_ in rows}
    for name in collections:
        if name not in known:
            raise NotFoundError(
                f"there is no collection {name}; those are: {', '.join(sorted(known)) or 'none'}", param="collections"
            )
    chosen = [
        (key, name, sensitivity)
        for key, name, sensitivity, full in rows
        if full and (name in collections or not collections)
    ]
    if not chosen:
        raise RequestError("there is no document to export; add some: edge add PATH", param="collections")
    return chosen


def _copy_settings(source: apsw.Connection, target: apsw.Connection, names: Sequence[str]) -> None:
    """Weights that were fitted for the chosen collections (``search.COLLECTION...``), and nothing else that is kept."""
    rows: Any = source.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
    wanted = tuple(f"{SETTING}search.{name}." for name in names)
    target.executemany("INSERT INTO meta VALUES (?, ?)", [row for row in rows if row[0].startswith(wanted)])


def _copy(
    source: apsw.Connection, target: apsw.Connection, chosen: Sequence[tuple[int, str, str]], told: Told
) -> list[HeldCollection]:
    """Every document of the chosen collections, numbered anew in the order of collection and name."""
    copying = Copying(source, target)
    held: list[HeldCollection] = []
    work: list[tuple[int, str, int, str, str]] = []
    for number, (key, name, sensitivity) in enumerate(chosen, 1):
        rows: Any = source.execute(
            "SELECT key, name, sha256 FROM documents WHERE collection = ? ORDER BY name", (key,)
        ).fetchall()
        held.append(HeldCollection(name=name, sensitivity=sensitivity, documents=len(rows)))  # type: ignore[arg-type]
        target.execute("INSERT INTO collections (id, name, sensitivity) VALUES (?, ?, ?)", (number, name, sensitivity))
        work += [(number, name, *row) for row in rows]
    following: dict[int, int] = {}
    for to, (collection, inside, document, called, sha256) in enumerate(work, 1):
        told(to - 1, len(work))
        if to % _BATCH == 0:
            target.execute("COMMIT; BEGIN")
        first = following.get(collection, 1)
        ids = copying.chunks(document)
        chunks = {old: (collection << schema.SHIFT) + number for number, old in enumerate(ids, first)}
        following[collection] = first + len(ids)
        # When and under which id it was added is this box's own affair.
        identity = content_id(inside, called, sha256, text_of(source, document))
        copying.document(document, {"key": to, "id": identity, "collection": collection, "added": 0.0})
        copying.parts(document, to, chunks)
        order = {old: number for number, old in enumerate(ids)}
        copying.vectors(sorted(copying.windows(document), key=lambda one: order[one.chunk]), chunks, collection)
    for collection, number in following.items():
        target.execute("UPDATE collections SET next_chunk = ? WHERE id = ?", (number, collection))
    target.execute("INSERT INTO meta VALUES ('next_document', ?)", (str(len(work) + 1),))
    target.execute("INSERT INTO meta VALUES ('next_window', ?)", (str(copying.window),))
    told(len(work), len(work))
    return held

"""Connections to the knowledge database: apsw with sqlite-vec, one writer and a reader for each thread.

Turns SQLite's errors into :class:`StorageError` with what to do about them. A damaged file is never written to.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import apsw
import sqlite_vec

from edge_runtime.errors import StorageError
from edge_runtime.knowledge import schema

BUSY_MS = 10_000
_PATIENCE_MS = 500  # for readers of an older snapshot, when the log is emptied: what they hold up can be done later
_CHECKED_BYTES = 64 * 2**20  # a larger file is checked for its structure only: reading it all would delay every start
_HEADER_BYTES = 100
_STEP_PAGES = 4096  # that are given back in one transaction
_COPY = ".compact"
_READ = apsw.SQLITE_OPEN_READONLY
_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


def _damaged(path: Path, error: object) -> StorageError:
    return StorageError(
        f"the index {path} is damaged ({error}): nothing was changed in it; restore a backup (edge restore), "
        "or move the file away and add the documents again"
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as StorageError."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise _damaged(path, error) from error
    except apsw.FullError as error:
        raise StorageError(
            f"the disk that holds {path} is full: free some space and try again; what was stored is intact"
        ) from error
    except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StorageError(
            f"the index {path} cannot be read or written ({error}): check the disk's free space, the file's owner and "
            "its permissions; what was stored is intact"
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StorageError(f"the index {path} is locked by another process: stop it and try again") from error


class Database:
    """One file; safe to use from many threads."""

    def __init__(self, path: Path, *, width: int, immutable: bool = False) -> None:
        """``immutable``: the file is only read, and nobody else changes it meanwhile.

        Raises:
            StorageError: the file is damaged, from a newer version, or cannot be opened.
        """
        self.path = path
        self.settled = True  # what was removed has left the disk
        self._lock = threading.RLock()
        self._local = threading.local()
        self._readers: list[apsw.Connection] = []
        self._writer: apsw.Connection | None = None
        self._closed = False
        self._immutable = immutable
        with explained(path):
            try:
                if immutable or (path.exists() and path.stat().st_size):
                    self._check()
                if not immutable:
                    self._begin(width)
            except apsw.SQLError as error:  # the file claims to be what it is not
                raise _damaged(path, error) from error

    def _begin(self, width: int) -> None:
        self._remove_copies()
        self._writer = self._connect(_WRITE)
        try:
            schema.migrate(self._writer, str(self.path), width=width, now=time.time())
        except BaseException:
            self._writer.close()
            raise
        self.path.chmod(0o600)

    def _connect(self, flags: int) -> apsw.Connection:
        connection = self._open(flags)
        connection.set_busy_timeout(BUSY_MS)
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        # A sealed process may write no other directory.
        connection.pragma("temp_store", "memory")
        connection.pragma("cache_size", -16_384)
        if flags == _WRITE:
            connection.pragma("auto_vacuum", "incremental")
            connection.pragma("journal_mode", "wal")
            # NORMAL may lose the last commit in a power cut; a document that was acknowledged must not vanish.
            connection.pragma("synchronous", "full")
            connection.pragma("foreign_keys", True)
            connection.pragma("secure_delete", True)
        return connection

    def _open(self, flags: int) -> apsw.Connection:
        if not self._immutable:
            return apsw.Connection(str(self.path), flags=flags)
        name = f"file:{quote(str(self.path.absolute()))}?immutable=1"
        return apsw.Connection(name, flags=flags | apsw.SQLITE_OPEN_URI)

    def _check(self) -> None:
        """Read-only, so that a damaged file stays as it is."""
        size = self.path.stat().st_size
        connection = self._open(_READ)
        try:
            connection.set_busy_timeout(BUSY_MS)
            if size < _HEADER_BYTES:
                raise apsw.NotADBError(f"{size} bytes are no database")
            held = connection.pragma("page_count") * connection.pragma("page_size")
            if size < held and not _size(self._log):
                raise apsw.CorruptError(f"{size} of its {held} bytes are there")
            if size <= _CHECKED_BYTES:
                finding = connection.pragma("quick_check")
                if finding != "ok":
                    raise apsw.CorruptError(str(finding).replace("\n", "; ")[:200])
            if connection.pragma("user_version") == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise StorageError(f"{self.path} is an SQLite file of something else: move it away")
            schema.refuse_newer(connection, str(self.path))
            if (newest := schema.last_applied(connection)) != schema.version(connection):
                raise apsw.CorruptError(f"its schema is {newest}, and its header says {schema.version(connection)}")
            if self._immutable and schema.version(connection) < schema.MIGRATIONS[-1].number:
                raise StorageError(f"{self.path} is of an older version, and cannot be changed: have it written anew")
        finally:
            connection.close()

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    @property
    def file_bytes(self) -> int:
        """Of the file and its write-ahead log."""
        return _size(self.path) + _size(self._log)

    @property
    def reader(self) -> apsw.Connection:
        """This thread's connection for reading."""
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                if self._closed:
                    raise StorageError(f"the index {self.path} is closed")
                connection = self._connect(_READ)
                self._readers.append(connection)
            self._local.connection = connection
        return connection

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """One snapshot for several statements; nothing that a writer commits meanwhile is seen. One inside another is
        the same snapshot."""
        with explained(self.path):
            connection = self.reader
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:  # SQLite itself rolls back on some errors
                    connection.execute("ROLLBACK")

    @contextmanager
    def turn(self) -> Iterator[apsw.Connection]:
        """The one writer, held for several transactions: nobody else's come between them."""
        with self._lock:
            if self._closed:
                raise StorageError(f"the index {self.path} is closed")
            if self._writer is None:
                raise StorageError(f"{self.path} is mounted, and can only be read")
            yield self._writer

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """One transaction of the one writer: all of it is stored, or nothing."""
        with explained(self.path), self.turn() as writer:
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:  # SQLite itself rolls back on some errors
                    writer.execute("ROLLBACK")
                raise

    def reclaim(self) -> None:
        """Give freed pages back and empty the write-ahead log: what was removed leaves the disk.

        Where somebody reads an older snapshot, the log stays, and :attr:`settled` is False.
        """
        with explained(self.path), self.turn() as writer:
            free = writer.pragma("freelist_count")
            while free:
                writer.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
                before, free = free, writer.pragma("freelist_count")
                if free >= before:
                    break
            writer.set_busy_timeout(_PATIENCE_MS)
            try:
                self.settled = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0] == 0
            finally:
                writer.set_busy_timeout(BUSY_MS)

    def rewrite(self) -> None:
        """Write every page anew, tightly packed, in one transaction; readers go on.

        ``VACUUM`` would hold the whole file in memory, since a sealed process has no temporary directory: here the
        packed copy lies beside the file meanwhile. Raises StorageError: no room for it; nothing was changed.
        """
        copy = self.path.with_name(f"{self.path.name}.{os.getpid()}{_COPY}")
        with explained(self.path), self.turn() as writer:
            copy.unlink(missing_ok=True)
            try:
                writer.execute("VACUUM INTO ?", (str(copy),))
                copy.chmod(0o600)
                self.take(copy)
            finally:
                copy.unlink(missing_ok=True)

    def take(self, other: Path) -> None:
        """Hold what the index file ``other`` holds, all of it in one transaction; readers go on.

        Raises StorageError: no room for its pages; nothing was changed.
        """
        with explained(self.path), self.turn() as writer:
            source = apsw.Connection(str(other), flags=_READ)
            try:
                with writer.backup("main", source, "main") as backup:
                    while not backup.done:
                        backup.step(-1)
            finally:
                source.close()
            self.reclaim()

    def _remove_copies(self) -> None:
        """Packed copies that a killed process left behind."""
        for copy in self.path.parent.glob(f"{self.path.name}.*{_COPY}"):
            with contextlib.suppress(ValueError, PermissionError):
                owner = int(copy.name.removesuffix(_COPY).rpartition(".")[2])
                try:
                    os.kill(owner, 0)
                except ProcessLookupError:
                    copy.unlink(missing_ok=True)

    def copy(self, target: Path) -> None:
        """A compact copy of the file as it is now (``VACUUM INTO``); readers and the writer go on."""
        with explained(target):
            self.reader.execute("VACUUM INTO ?", (str(target),))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for connection in [*self._readers, *([] if self._writer is None else [self._writer])]:
                connection.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

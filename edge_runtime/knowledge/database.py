"""Connections to the knowledge database: apsw with sqlite-vec, one writer and a reader for each thread.

Turns SQLite's errors into :class:`StorageError` with what to do about them. A damaged file is never written to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import sqlite_vec

from edge_runtime.errors import StorageError
from edge_runtime.knowledge import schema

BUSY_MS = 10_000
_CHECKED_BYTES = 64 * 2**20  # a larger file is checked for its structure only: reading it all would delay every start
_READ = apsw.SQLITE_OPEN_READONLY
_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as StorageError."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StorageError(
            f"the index {path} is damaged ({error}): nothing was changed in it; restore a backup (edge restore), "
            "or move the file away and add the documents again"
        ) from error
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

    def __init__(self, path: Path, *, width: int) -> None:
        """Raises StorageError: the file is damaged, from a newer version, or cannot be opened."""
        self.path = path
        self._lock = threading.RLock()
        self._local = threading.local()
        self._readers: list[apsw.Connection] = []
        self._closed = False
        with explained(path):
            if path.exists() and path.stat().st_size:
                self._check()
            self._writer = self._connect(_WRITE)
            try:
                schema.migrate(self._writer, str(path), width=width, now=time.time())
            except BaseException:
                self._writer.close()
                raise
        path.chmod(0o600)

    def _connect(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=flags)
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

    def _check(self) -> None:
        """Read-only, so that a damaged file stays as it is."""
        connection = apsw.Connection(str(self.path), flags=_READ)
        try:
            connection.set_busy_timeout(BUSY_MS)
            if self.path.stat().st_size <= _CHECKED_BYTES:
                finding = connection.pragma("quick_check")
                if finding != "ok":
                    raise apsw.CorruptError(str(finding).replace("\n", "; ")[:200])
            if connection.pragma("user_version") == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise StorageError(f"{self.path} is an SQLite file of something else: move it away")
            schema.refuse_newer(connection, str(self.path))
        finally:
            connection.close()

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
        """One snapshot for several statements; nothing that a writer commits meanwhile is seen."""
        with explained(self.path):
            connection = self.reader
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """One transaction of the one writer: all of it is stored, or nothing."""
        with explained(self.path), self._lock:
            if self._closed:
                raise StorageError(f"the index {self.path} is closed")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite itself rolls back on some errors
                    self._writer.execute("ROLLBACK")
                raise

    def reclaim(self) -> None:
        """Give freed pages back and empty the write-ahead log: what was removed leaves the disk."""
        with explained(self.path), self._lock:
            self._writer.execute("PRAGMA incremental_vacuum").fetchall()
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def copy(self, target: Path) -> None:
        """A compact copy of the file as it is now (``VACUUM INTO``); readers and the writer go on."""
        with explained(target):
            self.reader.execute("VACUUM INTO ?", (str(target),))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for connection in [*self._readers, self._writer]:
                connection.close()

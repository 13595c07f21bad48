"""A mounted index file: opened immutable, and able to do nothing but read, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from edge_runtime.errors import StorageError
from edge_runtime.knowledge.database import Database
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.inspection import confine, only_reading


class Frozen(Database):
    """A database that nobody writes to, with an authorizer on every connection."""

    def _connect(self, flags: int) -> apsw.Connection:
        connection = super()._connect(flags)
        confine(connection)
        connection.authorizer = only_reading
        return connection

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """As of any database; what SQLite and its modules say of a file that was changed meanwhile is its trouble."""
        try:
            with super().reading() as connection:
                yield connection
        except apsw.Error as error:
            raise StorageError(
                f"the mounted file {self.path.name} is damaged or was changed ({error}); unmount it, and mount the "
                "file that was exported again"
            ) from error


def open_frozen(path: Path, *, embedder: str, width: int) -> Index:
    """The index in a file that was inspected (:func:`edge_runtime.knowledge.inspection.inspect`).

    Raises:
        StorageError: it is damaged, or cannot be opened.
    """
    return Index(Frozen(path, width=width, immutable=True), width=width, embedder=embedder)

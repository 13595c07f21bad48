"""The daemon's own small database: what people said about answers. It holds ids and verdicts, and no text."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import apsw

from edge_runtime.errors import StorageError
from edge_runtime.knowledge.database import explained
from edge_runtime.knowledge.schema import Migration, migrate, refuse_newer
from edge_runtime.knowledge_protocol import FeedbackRequest


def _first(connection: apsw.Connection, _width: int) -> None:
    connection.execute(
        """
        CREATE TABLE feedback (
            id INTEGER PRIMARY KEY,
            answer TEXT NOT NULL,
            verdict TEXT NOT NULL CHECK (verdict IN ('good', 'bad')),
            hit INTEGER,
            peer TEXT NOT NULL,
            at REAL NOT NULL  -- Unix seconds
        );
        CREATE INDEX feedback_by_answer ON feedback (answer);
        """
    )


MIGRATIONS: tuple[Migration, ...] = (Migration(1, "feedback", _first),)


class Journal:
    """One file; safe to use from many threads."""

    def __init__(self, path: Path, *, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
        """Raises StorageError: damaged, unwritable, or from a newer version; such a file stays as it is."""
        self.path = path
        self._lock = threading.Lock()
        with explained(path):
            self._connection = apsw.Connection(str(path))
            try:
                self._prepare(migrations)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, migrations: tuple[Migration, ...]) -> None:
        self._connection.set_busy_timeout(10_000)
        if (finding := self._connection.pragma("quick_check")) != "ok":
            raise StorageError(
                f"the journal {self.path} is damaged ({finding}): restore a backup, or move the file away"
            )
        refuse_newer(self._connection, str(self.path), migrations[-1].number)
        self._connection.pragma("temp_store", "memory")
        self._connection.pragma("journal_mode", "wal")
        migrate(self._connection, str(self.path), width=0, now=time.time(), migrations=migrations)

    def note(self, feedback: FeedbackRequest, peer: str) -> None:
        with self._lock, explained(self.path):
            self._connection.execute(
                "INSERT INTO feedback (answer, verdict, hit, peer, at) VALUES (?, ?, ?, ?, ?)",
                (feedback.answer_id, feedback.verdict, feedback.hit, peer, time.time()),
            )

    def verdicts(self) -> list[tuple[str, str, int | None]]:
        """Answer, verdict and hit, oldest first."""
        with self._lock, explained(self.path):
            rows: list[tuple[str, str, int | None]] = self._connection.execute(
                "SELECT answer, verdict, hit FROM feedback ORDER BY id"
            ).fetchall()  # type: ignore[assignment]
        return rows

    def backup(self, target: Path) -> None:
        """A compact, consistent copy at ``target``, which must not exist."""
        with self._lock, explained(target):
            self._connection.execute("VACUUM INTO ?", (str(target),))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

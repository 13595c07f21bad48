"""Collections: named groups of documents, how sensitive they are and who may read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from edge_runtime.protocol import Sensitivity


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks: a user of this box with all of its groups. The owner and root administer, and read everything."""

    uid: int
    gids: frozenset[int] = frozenset()
    owner: bool = False


@dataclass(frozen=True, slots=True)
class Collection:
    """Without ``uids`` and ``gids`` everyone who may ask at all may read it."""

    name: str
    sensitivity: Sensitivity
    uids: frozenset[int]
    gids: frozenset[int]

    def readable(self, reader: Reader) -> bool:
        if reader.owner or not (self.uids or self.gids):
            return True
        return reader.uid in self.uids or not self.gids.isdisjoint(reader.gids)


def key(connection: apsw.Connection, name: str) -> int | None:
    row: Any = connection.execute("SELECT id FROM collections WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def ensure(connection: apsw.Connection, name: str) -> int:
    connection.execute("INSERT INTO collections (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    return int(connection.execute("SELECT id FROM collections WHERE name = ?", (name,)).get)


def find(connection: apsw.Connection, name: str) -> Collection | None:
    row: Any = connection.execute("SELECT id, sensitivity FROM collections WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    readers: Any = connection.execute("SELECT kind, number FROM readers WHERE collection = ?", (row[0],)).fetchall()
    return Collection(
        name,
        row[1],
        frozenset(number for kind, number in readers if kind == "uid"),
        frozenset(number for kind, number in readers if kind == "gid"),
    )


def every(connection: apsw.Connection) -> list[Collection]:
    names: Any = connection.execute("SELECT name FROM collections ORDER BY name").fetchall()
    return [found for (name,) in names if (found := find(connection, name)) is not None]


def change(
    connection: apsw.Connection,
    name: str,
    *,
    sensitivity: Sensitivity | None,
    uids: Sequence[int] | None,
    gids: Sequence[int] | None,
) -> None:
    identity = ensure(connection, name)
    if sensitivity is not None:
        connection.execute("UPDATE collections SET sensitivity = ? WHERE id = ?", (sensitivity, identity))
    for kind, numbers in (("uid", uids), ("gid", gids)):
        if numbers is not None:
            connection.execute("DELETE FROM readers WHERE collection = ? AND kind = ?", (identity, kind))
            connection.executemany("INSERT INTO readers VALUES (?, ?, ?)", [(identity, kind, one) for one in numbers])

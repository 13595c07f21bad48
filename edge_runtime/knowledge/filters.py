"""What a search may see: one collection, and of it the documents that pass a filter. Knows nothing of readers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apsw

from edge_runtime.knowledge import collections
from edge_runtime.knowledge_protocol import Filter

_PASSING = "SELECT d.key FROM documents AS d WHERE "


@dataclass(frozen=True, slots=True)
class Scope:
    """Resolved inside one read snapshot, and good for as long as that is held; keys are never used twice."""

    collection: int  # key
    documents: frozenset[int] | None  # keys of the documents that pass the filter; None: all of the collection


def resolve(connection: apsw.Connection, collection: str, wanted: Filter | None) -> Scope | None:
    """The scope of a filter; None where there is no such collection.

    A document passes that is named (by name or id) if any is, has all of the tags, and is dated within the days; one
    without a date passes no limit on the date. A name that no document has lets nothing in.
    """
    key = collections.key(connection, collection)
    if key is None:
        return None
    if wanted is None:
        return Scope(key, None)
    clauses: list[str] = ["d.collection = ?"]
    given: list[Any] = [key]
    if wanted.documents:
        clauses.append("(d.name IN (SELECT value FROM json_each(?)) OR d.id IN (SELECT value FROM json_each(?)))")
        given += [as_json(wanted.documents)] * 2
    if wanted.tags:
        tags = sorted(set(wanted.tags))
        clauses.append(
            "(SELECT count(*) FROM tags AS t WHERE t.document = d.key"
            " AND t.tag IN (SELECT value FROM json_each(?))) = ?"
        )
        given += [as_json(tags), len(tags)]
    for limit, operator in ((wanted.since, ">="), (wanted.until, "<=")):
        if limit is not None:
            clauses.append(f"d.date {operator} ?")  # NULL passes neither
            given.append(limit)
    if len(clauses) == 1:
        return Scope(key, None)
    rows: Any = connection.execute(_PASSING + " AND ".join(clauses), given).fetchall()
    return Scope(key, frozenset(row[0] for row in rows))


def as_json(values: Iterable[object]) -> str:
    """A list for ``json_each``, which has no bound on the number of values as parameters have."""
    return json.dumps(list(values))

"""Artifacts for tests: honest ones, and ones that somebody forged with care."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

from edge_runtime.errors import StorageError
from edge_runtime.knowledge.artifact import write
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.inspection import HEADER, Header, content_digest, inspect, prepare
from tests.edge_runtime.knowledge.conftest import written

EMBEDDER = "model@1"


def make(path: Path, *, collections: tuple[str, ...] = ("pumps",), embedder: str = EMBEDDER, words: str = "") -> Path:
    """An export of two documents in each collection."""
    index = Index.open(path.with_suffix(".db"), embedder=embedder)
    for collection in collections:
        for number in (1, 2):
            text = f"Pump P{number} of the {collection} hums. Its alarm E{number} means low pressure. {words}" * 5
            index.add(written(f"{number}.txt", text, collection=collection, seed=number, parts=3, sha256=f"s{number}"))
    write(index, path, [], day="2031-02-03", program="test")
    index.close()
    return path


def forge(path: Path, *statements: str, header: dict[str, object] | None = None) -> Path:
    """Change a file as somebody would who knows how it is checked: with the header, and its digest, to match."""
    path.chmod(0o600)
    with closing(apsw.Connection(str(path))) as connection:
        prepare(connection)
        connection.pragma("writable_schema", True)
        for statement in statements:
            connection.execute(statement)
        text = connection.execute("SELECT value FROM meta WHERE key = ?", (HEADER,)).get
        told = {**msgspec.json.decode(text), **(header or {})}
        told["digest"] = (header or {}).get("digest") or content_digest(connection)
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (msgspec.json.encode(told).decode(), HEADER))
    return path


def assert_refused(path: Path, *, match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StorageError, match=match):
        inspect(path)
    assert path.read_bytes() == before


def header_of(path: Path) -> Header:
    return inspect(path).header

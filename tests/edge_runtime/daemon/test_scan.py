"""The coarse copy beside a real index: opened with it, and behind it never for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.daemon.scan import attach, look
from edge_runtime.knowledge.coarse import FILE, Coarse
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.lookup import Lookup
from tests.edge_runtime.knowledge.conftest import direction, written


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index.open(tmp_path / "index.db", embedder="test")
    yield opened
    if opened.coarse is not None:
        opened.coarse.close()
    opened.close()


def nearest(index: Lookup, seed: int) -> dict[int, float]:
    scope = index.scope("default")
    assert scope is not None
    return index.nearest(scope, direction(seed)[0], 10)


def test_the_copy_is_built_when_the_index_is_opened_and_follows_it(index: Index, tmp_path: Path) -> None:
    index.add(written("a", "text of a", parts=3, seed=5))
    exact = nearest(index, 5)
    assert look(index, tmp_path / "scan", 0) == 1
    assert index.scanned()
    assert nearest(index, 5) == pytest.approx(exact, abs=1e-4)
    second = index.add(written("b", "text of b", parts=2, seed=50))
    index.add(written("a", "other text of a", parts=4, seed=9))
    index.set_collection("default", sensitivity="secret")
    assert index.scanned()
    assert len(nearest(index, 50)) == 6
    index.remove(second.id)
    assert index.scanned()
    assert len(nearest(index, 50)) == 4
    assert look(index, tmp_path / "scan", 1) == 0


def test_a_copy_that_is_behind_is_built_anew_at_the_secondlook(index: Index, tmp_path: Path) -> None:
    look(index, tmp_path / "scan", 0)
    copy, index.coarse = index.coarse, None
    index.add(written("a", "sample", parts=3))
    index.coarse = copy
    assert not index.scanned()
    assert len(nearest(index, 0)) == 3
    assert look(index, tmp_path / "scan", 0) == 1
    assert not index.scanned()
    assert look(index, tmp_path / "scan", 1) == 2
    assert index.scanned()
    assert len(nearest(index, 0)) == 3


def test_a_database_of_another_history_is_not_answered_for_though_its_epoch_is_the_same(tmp_path: Path) -> None:
    path, folder = tmp_path / "index.db", tmp_path / "scan"
    index = Index.open(path, embedder="test")
    index.add(written("a", "sample", parts=3))
    look(index, folder, 0)
    index.backup(tmp_path / "backup.db")
    index.add(written("b", "of the first history", seed=70))
    epoch = index.stats().epoch
    assert index.coarse is not None
    index.coarse.close()
    index.close()
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "backup.db").rename(path)
    second = Index.open(path, embedder="test")
    attach(second, folder)
    second.add(written("c", "of the second history", seed=90))
    assert second.stats().epoch == epoch
    assert not second.scanned()
    exact = nearest(second, 90)
    assert look(second, folder, 1) == 2
    assert second.scanned()
    assert nearest(second, 90) == pytest.approx(exact, abs=1e-4)
    second.close()


def test_the_copy_is_opened_again_without_being_built(tmp_path: Path) -> None:
    path, folder = tmp_path / "index.db", tmp_path / "scan"
    files = set()
    for turn in range(3):
        index = Index.open(path, embedder="test")
        if turn == 0:
            index.add(written("a", "sample", parts=3))
        assert look(index, folder, 0) == (1 if turn == 0 else 0)
        files.add((folder / FILE).stat().st_ino)
        assert index.scanned()
        assert index.coarse is not None
        index.coarse.close()
        index.close()
    assert len(files) == 1


def test_a_damaged_copy_is_built_anew(index: Index, tmp_path: Path) -> None:
    index.add(written("a", "sample", parts=3))
    folder = tmp_path / "scan"
    look(index, folder, 0)
    assert isinstance(index.coarse, Coarse)
    index.coarse.close()
    index.coarse = None
    (folder / FILE).write_bytes(b"nothing of the kind")
    look(index, folder, 0)
    assert index.scanned()
    assert len(nearest(index, 0)) == 3

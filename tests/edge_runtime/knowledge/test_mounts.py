"""Mounted indexes: named, checked, kept over restarts, read-only, and each in trouble alone."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_runtime.errors import EdgeError, NotFoundError, RefusedError, RequestError, StorageError
from edge_runtime.knowledge.collections import Reader
from edge_runtime.knowledge.mounts import Mounts
from edge_runtime.knowledge.search import search
from edge_runtime.knowledge_protocol import Mount
from tests.edge_runtime.knowledge.artifacts import EMBEDDER, make
from tests.edge_runtime.knowledge.conftest import direction


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one.index`` holds the collection pumps, ``two.index`` pumps and valves, ``foreign.index`` other vectors."""
    folder = tmp_path_factory.mktemp("files")
    make(folder / "one.index")
    make(folder / "two.index", collections=("pumps", "valves"))
    make(folder / "foreign.index", embedder="other@2")
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path) -> Path:
    for path in files.glob("*.index"):
        shutil.copy(path, tmp_path)
    return tmp_path


def loaded(folder: Path, *, embedder: str = EMBEDDER, taken: Sequence[str] = ()) -> Mounts:
    mounts = Mounts(folder)
    mounts.load(embedder=embedder, taken=lambda: taken)
    return mounts


def mount(
    mounts: Mounts,
    name: str = "vendor",
    file: str = "one.index",
    *,
    sha256: str | None = None,
    uids: Sequence[int] = (),
    taken: Sequence[str] = (),
) -> Mount:
    return mounts.mount(name, file, sha256=sha256, uids=uids, gids=(), taken=taken)


def troubles(mounts: Mounts) -> dict[str, str]:
    return {one.name: one.trouble for one in mounts.listing()}


def found(mounts: Mounts, name: str, text: str = "alarm E1") -> list[str]:
    held = mounts.find(name)
    assert held is not None
    return [one.document for one in search(held.index, text, direction(1)[0], collection=held.inside, k=2)]


def test_a_mount_answers_under_its_name_and_several_collections_under_theirs(folder: Path) -> None:
    mounts = loaded(folder)
    assert mount(mounts).collections == ["vendor"]
    assert mount(mounts, "v", "two.index").collections == ["v-pumps", "v-valves"]
    assert [one.access.name for one in mounts.every()] == ["v-pumps", "v-valves", "vendor"]
    assert found(mounts, "vendor")[0] == found(mounts, "v-valves")[0] == "1.txt"
    assert mounts.find("v") is mounts.find("pumps") is None
    held = mounts.find("v-valves")
    assert held is not None
    (one, *_) = held.index.documents(held.inside)
    ((place, document),) = mounts.document(one.id)
    assert (place.access.name, document.collection, document.name) == ("v-valves", "v-valves", one.name)


def test_mounts_and_what_the_owner_said_of_them_survive_a_restart(folder: Path) -> None:
    mounts = loaded(folder)
    mount(mounts, uids=[1000])
    mounts.change("vendor", sensitivity="secret", uids=None, gids=[7])
    again = loaded(folder)
    assert again.listing() == mounts.listing()
    held = again.find("vendor")
    assert held is not None
    assert (held.access.uids, held.access.gids, held.access.sensitivity) == (
        frozenset({1000}),
        frozenset({7}),
        "secret",
    )
    assert held.access.readable(Reader(1000))
    assert not held.access.readable(Reader(1001))
    assert found(again, "vendor") == found(mounts, "vendor")


def test_a_collection_is_made_more_sensitive_and_never_less_than_its_file_says(folder: Path) -> None:
    mounts = loaded(folder)
    mount(mounts)
    with pytest.raises(RefusedError, match="more sensitive, not less"):
        mounts.change("vendor", sensitivity="public", uids=None, gids=None)
    assert mounts.change("vendor", sensitivity="secret", uids=None, gids=None).sensitivity == "secret"
    assert mounts.change("vendor", sensitivity="internal", uids=None, gids=None).sensitivity == "internal"
    with pytest.raises(NotFoundError):
        mounts.change("other", sensitivity="secret", uids=None, gids=None)


def test_a_name_that_is_taken_or_cannot_be_is_refused_and_changes_nothing(folder: Path) -> None:
    mounts = loaded(folder)
    mount(mounts)
    for name, file, taken in (
        ("vendor", "two.index", ()),
        ("own", "one.index", ("own",)),
        ("own", "two.index", ("own-valves",)),
        ("default", "one.index", ()),
    ):
        with pytest.raises(RefusedError, match="another name"):
            mount(mounts, name, file, taken=taken)
    mount(mounts, "a-pumps")
    with pytest.raises(RefusedError, match="a-pumps already"):
        mount(mounts, "a", "two.index")
    with pytest.raises(RequestError, match="shorter name"):
        mount(mounts, "n" * 60, "two.index")
    assert list(troubles(mounts)) == ["a-pumps", "vendor"]
    assert sorted(path.name for path in folder.glob("*.json")) == ["a-pumps.json", "vendor.json"]


def test_a_file_that_is_not_what_was_meant_is_not_mounted_and_can_be_mended(folder: Path) -> None:
    mounts = loaded(folder)
    os.truncate(folder / "two.index", 5000)
    (folder / "link.index").symlink_to(folder / "one.index")
    with pytest.raises(StorageError, match="damaged"):
        mount(mounts, file="two.index")
    with pytest.raises(StorageError, match="is a link"):
        mount(mounts, file="link.index")
    with pytest.raises(StorageError, match="cannot be read"):
        mount(mounts, file="missing.index")
    with pytest.raises(StorageError, match="not the file that was meant"):
        mount(mounts, sha256="0" * 64)
    with pytest.raises(RefusedError, match=r"other@2.*edge.toml"):
        mount(mounts, file="foreign.index")
    assert mounts.listing() == []
    assert mount(mounts).trouble == ""


def test_a_full_disk_mounts_nothing(folder: Path) -> None:
    mounts = loaded(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(StorageError, match="free some space"):
            mount(mounts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert mounts.listing() == []
    assert list(folder.glob("*.json")) == list(folder.glob(".*")) == []
    assert mount(mounts).documents == 2


def test_a_damaged_missing_or_changed_file_is_told_and_stops_no_other(folder: Path) -> None:
    mounts = loaded(folder)
    for name in ("gone", "flipped", "record", "whole"):
        shutil.copy(folder / "one.index", folder / f"{name}.index")
        mount(mounts, name, f"{name}.index")
    (folder / "gone.index").unlink()
    data = bytearray((folder / "flipped.index").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "flipped.index").chmod(0o600)
    (folder / "flipped.index").write_bytes(data)
    (folder / "record.json").write_text("{half", "utf-8")
    again = loaded(folder)
    told = troubles(again)
    assert told["whole"] == ""
    assert "cannot be read" in told["gone"]
    assert "not the file that was meant" in told["flipped"]
    assert "record.json cannot be read" in told["record"]
    assert found(again, "whole")
    held = again.find("gone")
    assert held is not None
    with pytest.raises(StorageError, match="the mounted index gone"):
        _ = held.index
    for name in ("gone", "flipped", "record"):
        again.unmount(name)
    assert list(troubles(loaded(folder))) == ["whole"]


def test_a_file_that_vanishes_while_it_is_searched_breaks_that_search_at_most(folder: Path) -> None:
    mounts = loaded(folder)
    shutil.copy(folder / "one.index", folder / "other.index")
    mount(mounts)
    mount(mounts, "other", "other.index")
    held = mounts.find("vendor")
    assert held is not None
    odd: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                search(held.index, "alarm E1", direction(1)[0], collection=held.inside)
            except EdgeError:
                return
            except BaseException as error:  # noqa: BLE001  (the outer edge of a thread)
                odd.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    (folder / "one.index").chmod(0o600)
    os.truncate(folder / "one.index", 8192)
    (folder / "one.index").unlink()
    assert "gone or was changed" in troubles(mounts)["vendor"]
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []
    assert found(mounts, "other")


def test_unmounting_removes_the_file_and_the_record_and_frees_the_name(folder: Path) -> None:
    mounts = loaded(folder)
    mount(mounts)
    mounts.unmount("vendor")
    assert not (folder / "one.index").exists()
    assert not (folder / "vendor.json").exists()
    assert mounts.find("vendor") is None
    with pytest.raises(NotFoundError, match="edge index mounts"):
        mounts.unmount("vendor")
    mount(mounts, "vendor", "two.index")


def test_a_collection_of_the_box_that_came_by_the_same_name_goes_first(folder: Path) -> None:
    mount(loaded(folder))
    assert "collection vendor already" in troubles(loaded(folder, taken=["vendor"]))["vendor"]


def test_after_the_embedder_was_changed_a_mount_is_searched_by_its_words(folder: Path) -> None:
    mount(loaded(folder))
    mounts = loaded(folder, embedder="next@3")
    assert "only its words are searched" in troubles(mounts)["vendor"]
    held = mounts.find("vendor")
    assert held is not None
    assert search(held.index, "alarm E1", None, collection=held.inside)


@pytest.mark.parametrize(
    "record", [b"", b"[]", b'{"name": "vendor", "file": "../../x"}', b"\xff", b"[" * 100_000, b'{"name": "other"}']
)
def test_a_record_that_is_not_ours_is_trouble_and_can_be_removed(folder: Path, record: bytes) -> None:
    (folder / "vendor.json").write_bytes(record)
    mounts = loaded(folder)
    assert "cannot be read" in troubles(mounts)["vendor"]
    assert mounts.every() == []
    mounts.unmount("vendor")
    mount(mounts)

"""What the daemon keeps of adapters, and which one a request gets (with engines: tests/system/test_adapters.py)."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.adapter_protocol import Adapter, AdapterAdded
from edge_runtime.daemon.adapters import Adapters
from edge_runtime.errors import (
    EdgeError,
    ModelFileError,
    ModelNotFoundError,
    NotFoundError,
    RefusedError,
    RequestError,
    StorageError,
)
from edge_runtime.protocol import EdgeRequest
from tests.edge_runtime import adapter_files as files

BASE = "small"
CONTENT = files.small_adapter()
KNOWN = f"pumps@{hashlib.sha256(CONTENT).hexdigest()[:16]}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def adapters(place: Path, small_writer: Path) -> Adapters:
    return Adapters(place, BASE, lambda _: small_writer)


def add(adapters: Adapters, name: str = "pumps", content: bytes = CONTENT) -> AdapterAdded:
    return asyncio.run(adapters.add(name, content))


def remove(adapters: Adapters, name: str = "pumps") -> Adapter:
    return asyncio.run(adapters.remove(name))


def test_an_added_adapter_is_there_after_a_restart_and_only_its_owner_may_read_it(
    place: Path, adapters: Adapters, small_writer: Path
) -> None:
    added = add(adapters).adapter
    assert (added.name, added.base, added.architecture, added.rank) == ("pumps", BASE, "llama", 2)
    assert Adapters(place, BASE, lambda _: small_writer).known() == [added]
    assert (place / "pumps.gguf").read_bytes() == CONTENT
    assert (place / "pumps.gguf").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in place.iterdir()) == ["pumps.gguf", "pumps.json"]


def test_the_same_bytes_again_change_nothing_and_others_need_another_name(adapters: Adapters) -> None:
    first = add(adapters)
    again = add(adapters)
    assert (first.unchanged, again.unchanged) == (False, True)
    assert again.adapter == first.adapter
    with pytest.raises(RefusedError, match="edge adapter rm pumps"):
        add(adapters, content=files.small_adapter(seed=2))


def test_a_removed_adapter_is_gone_with_its_file_and_its_name_is_free(place: Path, adapters: Adapters) -> None:
    add(adapters)
    assert remove(adapters).name == "pumps"
    assert list(place.iterdir()) == []
    assert adapters.known() == []
    with pytest.raises(NotFoundError, match="no adapter is called pumps"):
        remove(adapters)
    assert add(adapters, content=files.small_adapter(seed=2)).adapter.name == "pumps"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a model", "pumps ends after 11 bytes"),
        (CONTENT[:-100], "the file ends inside"),
        (files.gguf(files.facts("qwen2"), files.pair("blk.0.attn_q.weight", (576, 576))), "architecture qwen2"),
        (files.gguf(files.facts(), files.pair("blk.0.attn_q.weight", (896, 896))), "was not made for small"),
    ],
)
def test_what_is_no_adapter_for_the_writer_is_refused_and_leaves_nothing(
    place: Path, adapters: Adapters, content: bytes, why: str
) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        add(adapters, content=content)
    assert str(place) not in refused.value.message
    assert list(place.iterdir()) == []
    assert adapters.known() == []


def test_an_adapter_may_be_for_another_writer_that_is_there(place: Path, small_writer: Path) -> None:
    def find(name: str) -> Path:
        if name != "other":
            raise ModelFileError(f"{name} is not installed; edge model pull {name} fetches it")
        return small_writer

    adapters = Adapters(place, BASE, find)
    assert asyncio.run(adapters.add("pumps", CONTENT, "other")).adapter.base == "other"
    assert adapters.choose("other:pumps") == ("other", KNOWN)
    with pytest.raises(ModelNotFoundError):
        adapters.choose("default:pumps")
    with pytest.raises(RequestError, match="nothing is not installed") as refused:
        asyncio.run(adapters.add("fans", CONTENT, "nothing"))
    assert refused.value.param == "base"
    assert sorted(path.name for path in place.iterdir()) == ["pumps.gguf", "pumps.json"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, small_writer: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be kept: Not a directory"):
        add(Adapters(tmp_path / "file" / "adapters", BASE, lambda _: small_writer))


def test_records_without_their_whole_file_do_not_count(place: Path, adapters: Adapters, small_writer: Path) -> None:
    for name in ("a", "b", "c", "d"):
        add(adapters, name)
    (place / "a.gguf").unlink()
    (place / "b.gguf").write_bytes(CONTENT[:-1])
    (place / "c.json").write_bytes(b"{}")
    (place / "d.json").rename(place / "e.json")
    (place / "d.gguf").rename(place / "e.gguf")
    assert Adapters(place, BASE, lambda _: small_writer).known() == []


def test_what_a_crash_left_is_removed_at_the_next_start_and_nothing_else(
    place: Path, adapters: Adapters, small_writer: Path
) -> None:
    kept = add(adapters).adapter
    add(adapters, "damaged")
    (place / "damaged.json").write_bytes(b"{}")
    for name in (".fans.part", ".fans.json.k3x9", "fans.gguf"):
        (place / name).write_bytes(CONTENT)
    (place / "notes.txt").write_bytes(b"mine")
    assert Adapters(place, BASE, lambda _: small_writer).known() == [kept]
    # A file that was never added may be somebody's only copy.
    left = {"damaged.gguf", "damaged.json", "fans.gguf", "notes.txt", "pumps.gguf", "pumps.json"}
    assert {path.name for path in place.iterdir()} == left


def test_an_adapter_killed_before_its_record_was_never_added_and_can_be_added_again(
    place: Path, small_writer: Path
) -> None:
    program = f"""
import asyncio, os, pathlib, sys
from edge_runtime.daemon.adapters import Adapters
from models import records
records.write = lambda *_: os.kill(os.getpid(), 9)
adapters = Adapters(pathlib.Path({str(place)!r}), {BASE!r}, lambda _: pathlib.Path({str(small_writer)!r}))
asyncio.run(adapters.add("pumps", sys.stdin.buffer.read()))
"""
    assert subprocess.run([sys.executable, "-c", program], input=CONTENT, check=False, timeout=60).returncode == -9
    assert [path.name for path in place.iterdir()] == ["pumps.gguf"]
    again = Adapters(place, BASE, lambda _: small_writer)
    assert again.known() == []
    assert add(again).adapter == again.known()[0]
    assert sorted(path.name for path in place.iterdir()) == ["pumps.gguf", "pumps.json"]


def test_a_record_that_cannot_be_written_leaves_no_file(place: Path, adapters: Adapters) -> None:
    (place / "pumps.json" / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be kept: Is a directory"):
        add(adapters)
    assert [path.name for path in place.iterdir()] == ["pumps.json"]


def test_a_request_names_its_adapter_beside_the_model_or_in_its_name(adapters: Adapters) -> None:
    add(adapters)
    assert adapters.choose(BASE) == (BASE, "")
    assert adapters.choose(BASE, EdgeRequest()) == (BASE, "")
    assert adapters.choose("another") == ("another", "")
    assert adapters.choose(f"{BASE}:pumps") == (BASE, KNOWN)
    assert adapters.choose("default:pumps") == ("default", KNOWN)
    assert adapters.choose(BASE, EdgeRequest(adapter="pumps")) == (BASE, KNOWN)
    assert adapters.choose("default:pumps", EdgeRequest(adapter="pumps")) == ("default", KNOWN)
    assert adapters.models(BASE) == [f"{BASE}:pumps"]
    assert adapters.models("another") == []


@pytest.mark.parametrize(
    ("model", "edge", "kind", "param"),
    [
        (f"{BASE}:fans", None, ModelNotFoundError, "model"),
        ("another:pumps", None, ModelNotFoundError, "model"),
        (BASE, EdgeRequest(adapter="fans"), RequestError, "edge.adapter"),
        ("another", EdgeRequest(adapter="pumps"), RequestError, "edge.adapter"),
        (f"{BASE}:pumps", EdgeRequest(adapter="fans"), RequestError, "model"),
    ],
)
def test_an_adapter_that_is_not_this_models_is_refused(
    adapters: Adapters, model: str, edge: EdgeRequest | None, kind: type[EdgeError], param: str
) -> None:
    add(adapters)
    with pytest.raises(kind) as refused:
        adapters.choose(model, edge)
    assert refused.value.param == param

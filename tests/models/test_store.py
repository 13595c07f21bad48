"""The model store: what is installed, shared, damaged, tuned, too large, somebody else's."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.blobs import digest
from models.catalog import Entry, File
from models.errors import DamagedFileError, NotInstalledError, StoreError
from models.machine import fingerprint
from models.partial import State
from models.records import Held, Installed
from models.store import Store
from tests.models.entries import entry_text, from_path, own

_QUOTA = 10**6


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _put(store: Store, name: str, *contents: bytes) -> Installed:
    """Install ``contents`` (weights, then tokenizer) as ``name``, the way a fetch does."""
    roles = ("weights", "tokenizer")[: len(contents)]
    files = [(role, content, from_path(Path("/none"))) for role, content in zip(roles, contents, strict=True)]
    entry = own(store.root, name, entry_text(name, list(files)))
    return store.install(
        entry, {file.role: _gather(store, entry, file, contents[i]) for i, file in enumerate(entry.files)}
    )


def _gather(store: Store, entry: Entry, file: File, content: bytes) -> tuple[Path, Held]:
    partial = store.partial(entry, file, file.sources[0])
    partial.expect(State(total=len(content)), "a test file")
    with partial.append_at(0) as data:
        data.write(content)
    held = Held(sha256=_sha(content), size=len(content), name=file.name, source="test", digest_origin="catalogue")
    return partial.data, held


def _variant(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "variant.gguf"
    path.write_bytes(content)
    return path


def test_what_was_installed_is_found_by_role_and_named_by_its_digest(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)

    installed = _put(store, "tiny", b"weights", b"tokenizer")

    assert installed.files["weights"].read_bytes() == b"weights"
    assert installed.files["tokenizer"].name == f"sha256-{_sha(b'tokenizer')}"
    assert installed.size == len(b"weightstokenizer")
    assert store.names() == ("tiny",)
    assert store.writer_path("tiny") == installed.files["weights"]
    assert not list((tmp_path / "partial").iterdir())


def test_what_was_installed_has_left_the_page_cache_to_be_read_anew_in_large_pages(tmp_path: Path) -> None:
    content = os.urandom(2**22)

    installed = _put(Store(tmp_path, 2**23), "tiny", content, b"tokenizer")

    with installed.files["weights"].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * (len(content) // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), len(content), pages) == 0
        assert sum(page & 1 for page in pages) == 0
        gc.collect()  # what `from_buffer` holds


def test_a_store_that_was_never_written_is_empty_and_stays_uncreated(tmp_path: Path) -> None:
    store = Store(tmp_path / "none", _QUOTA)

    assert store.names() == ()
    assert store.used_bytes() == 0
    with pytest.raises(NotInstalledError, match="edge model pull tiny"):
        store.get("tiny")
    assert not store.root.exists()


def test_a_file_that_two_models_share_is_kept_once_and_until_the_last_of_them_goes(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    _put(store, "one", b"first", b"shared")
    _put(store, "two", b"second", b"shared")
    assert len(list((tmp_path / "blobs").iterdir())) == 3

    assert store.remove("one") == len(b"first")
    assert store.get("two").files["tokenizer"].read_bytes() == b"shared"
    assert store.remove("two") == len(b"secondshared")
    assert not list((tmp_path / "blobs").iterdir())


def test_removing_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInstalledError):
        Store(tmp_path, _QUOTA).remove("tiny")


def test_a_store_holds_what_is_installed_or_half_fetched_and_nothing_that_is_no_name(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    _put(store, "tiny", b"weights")
    store.workspace("half")
    assert store.holds("tiny")
    assert store.holds("half")
    assert not any(store.holds(name) for name in ("none", "", ".", "../installed/tiny"))


def test_a_flipped_byte_is_found_by_verify_and_the_file_goes_so_that_a_pull_repairs(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    weights = _put(store, "tiny", b"weights", b"tokenizer").files["weights"]
    weights.chmod(0o644)
    weights.write_bytes(b"weightz")

    findings = {finding.role: finding.problem for finding in store.verify("tiny")}

    assert findings["tokenizer"] is None
    assert _sha(b"weightz") in (findings["weights"] or "")
    assert "edge model pull tiny" in (findings["weights"] or "")
    with pytest.raises(DamagedFileError, match="missing"):
        store.get("tiny")


@pytest.mark.parametrize("content", [b"", b"weight", b"weights and more"])
def test_a_file_of_the_wrong_length_is_refused_without_reading_it(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path, _QUOTA)
    weights = _put(store, "tiny", b"weights").files["weights"]
    weights.chmod(0o644)
    weights.write_bytes(content)

    with pytest.raises(DamagedFileError, match=rf"{len(content)} bytes instead of 7"):
        store.get("tiny")


def test_a_damaged_manifest_is_named_and_nothing_is_swept_away_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    _put(store, "tiny", b"weights")
    (tmp_path / "installed" / "tiny.json").write_bytes(b"{")

    with pytest.raises(DamagedFileError, match=r"tiny\.json"):
        store.get("tiny")
    with pytest.raises(DamagedFileError, match=r"tiny\.json"):
        _put(store, "other", b"other")
    assert (tmp_path / "blobs" / f"sha256-{_sha(b'weights')}").exists()


def test_a_variant_is_what_the_writer_runs_from_and_the_one_before_it_goes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", _QUOTA)
    weights = _put(store, "tiny", b"weights").files["weights"]

    store.add_variant("tiny", _variant(tmp_path, b"first"), "Q4_0", figures={"decode": 1.5}, machine=fingerprint())
    tuned = store.add_variant("tiny", _variant(tmp_path, b"second"), "Q8_0", figures={}, machine=fingerprint())

    assert store.writer_path("tiny").read_bytes() == b"second"
    assert store.tuned("tiny") == tuned
    assert store.get("tiny").size == len(b"weightssecond")
    assert weights.exists()
    assert len(list((store.root / "blobs").iterdir())) == 2


def test_a_variant_of_other_weights_is_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", _QUOTA)
    _put(store, "tiny", b"weights")
    store.add_variant("tiny", _variant(tmp_path, b"variant"), "Q4_0", figures={}, machine="m")

    _put(store, "tiny", b"newer weights")

    assert store.tuned("tiny") is None
    assert store.writer_path("tiny").read_bytes() == b"newer weights"


def test_a_damaged_variant_is_found_and_the_weights_take_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", _QUOTA)
    _put(store, "tiny", b"weights")
    store.add_variant("tiny", _variant(tmp_path, b"variant"), "Q4_0", figures={}, machine="m")
    path = store.writer_path("tiny")
    path.chmod(0o644)
    path.write_bytes(b"varianT")

    problems = {finding.role: finding.problem for finding in store.verify("tiny")}

    assert problems["weights"] is None
    assert "edge model tune" in (problems["tuned Q4_0"] or "")
    assert store.writer_path("tiny").read_bytes() == b"weights"


def test_keeping_the_source_is_recorded_as_tuned(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    _put(store, "tiny", b"weights")

    store.keep_source("tiny", figures={"why": "fastest"}, machine="m")

    tuned = store.tuned("tiny")
    assert tuned is not None
    assert tuned.sha256 == tuned.source_sha256 == _sha(b"weights")
    assert store.writer_path("tiny").read_bytes() == b"weights"
    assert store.get("tiny").size == len(b"weights")


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "../../mine", "tiny/..", "ABSOLUTE"])
def test_a_name_that_is_a_path_is_not_installed_and_removes_nothing(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store", _QUOTA)
    _put(store, "tiny", b"weights")
    (tmp_path / "store" / "partial" / "other").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    before = sorted(tmp_path.rglob("*"))
    wanted = str(tmp_path / "mine") if name == "ABSOLUTE" else name
    for act in (store.remove, store.verify, store.get):
        with pytest.raises(NotInstalledError):
            act(wanted)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_would_pass_the_quota_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", 10)
    _put(store, "tiny", b"weights")

    with pytest.raises(StoreError, match=r"edge model remove NAME.*models\.quota_bytes"):
        _put(store, "other", b"four")
    with pytest.raises(StoreError, match="Q4_0"):
        store.add_variant("tiny", _variant(tmp_path, b"four"), "Q4_0", figures={}, machine="m")
    assert store.writer_path("tiny").read_bytes() == b"weights"
    _put(store, "third", b"3by")


def test_more_than_the_disk_has_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path, 2**80)
    entry = own(tmp_path, "huge", entry_text("huge", [("weights", b"x", from_path(tmp_path))]))
    partial = store.partial(entry, entry.files[0], entry.files[0].sources[0])

    with pytest.raises(StoreError, match="free"):
        partial.expect(State(total=2**70), "a huge file")


def test_a_disk_that_is_full_while_installing_leaves_what_was_there(tmp_path: Path) -> None:
    """A directory in the manifest's place makes its rename fail, as a full disk would its write."""
    store = Store(tmp_path, _QUOTA)
    _put(store, "tiny", b"weights")
    (tmp_path / "installed" / "other.json").mkdir()

    with pytest.raises(StoreError, match="cannot be written"):
        _put(store, "other", b"other")
    assert store.get("tiny").files["weights"].read_bytes() == b"weights"


def test_a_store_of_somebody_else_can_be_read_and_not_written(tmp_path: Path) -> None:
    root = tmp_path / "store"
    _put(Store(root, _QUOTA), "tiny", b"weights")
    tmp_path.chmod(0o755)
    script = f"""
import os
from pathlib import Path
from models.errors import StoreError
from models.store import Store
os.setgid(65534); os.setuid(65534)
store = Store(Path({str(root)!r}), 100)
assert store.get("tiny").files["weights"].read_bytes() == b"weights"
assert [finding.problem for finding in store.verify("tiny")] == [None]
try:
    store.remove("tiny")
except StoreError as error:
    print(error)
"""
    if os.getuid() != 0:
        root.chmod(0o555)
        script = script.replace("os.setgid(65534); os.setuid(65534)", "")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "cannot be written" in done.stdout


def test_two_processes_that_hold_one_download_take_turns(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from models.store import Store
store = Store(Path(sys.argv[1]), 100)
count = store.root / "count"
for _ in range(200):
    with store.gathering("tiny"):
        count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
"""
    children = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]

    assert [child.wait() for child in children] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "600"
    assert not list((tmp_path / "partial").iterdir())


def test_a_digest_that_was_recorded_at_the_first_fetch_is_told_from_a_known_one(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    entry = own(tmp_path, "tiny", entry_text("tiny", [("weights", None, from_path(tmp_path))]))
    path, held = _gather(store, entry, entry.files[0], b"weights")
    installed = store.install(
        entry,
        {"weights": (path, Held(sha256=held.sha256, size=7, name="w", source="hub", digest_origin="first fetch"))},
    )

    assert installed.recorded == ("weights",)
    assert (
        json.loads((tmp_path / "installed" / "tiny.json").read_bytes())["files"]["weights"]["digest_origin"]
        == "first fetch"
    )


def test_hashing_tells_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5_000_000)
    steps: list[int] = []

    assert digest(path, steps.append) == _sha(b"x" * 5_000_000)
    assert steps == [4 * 2**20, 5_000_000]


def test_the_fingerprint_is_stable_and_differs_between_processors(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("model name\t: One\nflags\t\t: avx sse\n")
    (tmp_path / "b").write_text("model name\t: One\nflags\t\t: sse avx\n")
    (tmp_path / "c").write_text("model name\t: One\nflags\t\t: sse\n")

    assert fingerprint() == fingerprint()
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
    assert fingerprint(tmp_path / "none")


def test_a_copy_that_a_kill_left_half_made_goes_with_the_next_change(tmp_path: Path) -> None:
    store = Store(tmp_path, _QUOTA)
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "copy-abc").write_bytes(b"half")

    _put(store, "tiny", b"weights")

    assert not list((tmp_path / "partial").iterdir())

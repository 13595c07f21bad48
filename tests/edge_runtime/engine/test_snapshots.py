"""Snapshots on a real disk: whole or not there, bounded, and never in the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_runtime.engine import snapshot_format
from edge_runtime.engine.snapshots import Entry, Snapshots

IDENTITY = "weights abc, build 1, 30 layers, f16/f16, flash attention, rope 100000"
BLOB = bytes(range(256)) * 40
PATIENCE = 60.0  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "snapshots"
    found.mkdir()
    return found


@pytest.fixture
def tier(place: Path) -> Iterator[Snapshots]:
    made = Snapshots(place, IDENTITY, 2**24)
    yield made
    made.close()


def keep(tier: Snapshots, *tokens: int, blob: bytes = BLOB, start: int = 0, domain: str = "", label: str = "") -> Entry:
    """Save and wait for the disk."""
    entry = tier.entry(tokens, start, domain=domain, label=label, size=len(blob))
    tier.save(entry, blob)
    assert tier.flush(PATIENCE)
    return entry


def only(place: Path) -> Path:
    (path,) = place.glob("*.kv")
    return path


def written(entry: Entry, blob: bytes) -> bytes:
    return snapshot_format.encode(entry, snapshot_format.identify(IDENTITY), blob) + blob


# ---- the tier ------------------------------------------------------------------------------------------------------


def test_a_saved_segment_is_found_by_the_next_process_with_its_path_and_domain(place: Path, tier: Snapshots) -> None:
    entry = keep(tier, 1, 2, 3, start=1, domain="uid 7", label="interactive")
    tier.close()
    again = Snapshots(place, IDENTITY, 2**24)
    assert again.index() == [entry]
    assert (entry.tokens, entry.start, entry.domain, entry.label) == ((1, 2, 3), 1, "uid 7", "interactive")
    assert again.load(entry.key) == BLOB


def test_only_its_owner_may_read_a_file(place: Path, tier: Snapshots) -> None:
    keep(tier, 1)
    assert only(place).stat().st_mode & 0o777 == 0o600


def test_a_segment_that_still_waits_for_the_disk_is_found(tier: Snapshots) -> None:
    entry = tier.entry([5], 0)
    tier.save(entry, BLOB)
    assert tier.load(entry.key) == BLOB


def test_a_segment_of_another_model_is_left_alone_and_not_found(place: Path, tier: Snapshots) -> None:
    entry = keep(tier, 1)
    other = Snapshots(place, "another model", 2**24)
    assert other.index() == []
    assert tier.index() == [entry]


@pytest.mark.parametrize("damage", ["cut", "empty", "grown", "version", "magic", "header", "name", "directory"])
def test_a_file_with_a_damaged_head_is_not_in_the_index_and_removed(place: Path, tier: Snapshots, damage: str) -> None:
    keep(tier, 1, 2, 3)
    path = only(place)
    data = bytearray(path.read_bytes())
    match damage:
        case "cut":
            del data[-1]
        case "empty":
            data.clear()
        case "grown":
            data += b"\0"
        case "version":
            data[9] += 1
        case "magic":
            data[0] ^= 1
        case "header":
            data[snapshot_format.HEAD_BYTES + 5] ^= 1
        case "name":
            path = path.rename(place / f"{hashlib.sha256(b'x').hexdigest()}.kv")
        case "directory":
            path.unlink()
            path.mkdir()
    if damage != "directory":
        path.write_bytes(data)
    assert tier.index() == []
    assert path.exists() == (damage == "directory")
    assert tier.load(path.stem) is None


def test_a_flipped_bit_in_the_cells_is_noticed_when_they_are_loaded(place: Path, tier: Snapshots) -> None:
    entry = keep(tier, 1, 2, 3)
    path = only(place)
    data = bytearray(path.read_bytes())
    data[-7] ^= 16
    path.write_bytes(data)
    assert tier.index() == [entry]
    assert tier.load(entry.key) is None
    assert not path.exists()


def test_a_header_that_is_whole_but_impossible_is_no_segment(place: Path, tier: Snapshots) -> None:
    header = msgspec.msgpack.encode(["not", "a", "header"])
    head = snapshot_format._HEAD.pack(b"edge-kv\0", 1, len(header), hashlib.sha256(header).digest())
    path = place / f"{'0' * 64}.kv"
    path.write_bytes(head + header)
    assert tier.index() == []
    assert not path.exists()


def test_foreign_files_links_and_pipes_are_passed_over(place: Path, tier: Snapshots, tmp_path: Path) -> None:
    entry = keep(tier, 1)
    secret = tmp_path / "secret"
    secret.write_bytes(only(place).read_bytes())
    (place / "notes.txt").write_text("mine")
    (place / "UPPER.kv").write_bytes(b"x")
    (place / f"{'a' * 64}.kv").symlink_to(secret)
    os.mkfifo(place / f"{'b' * 64}.kv")
    assert tier.index() == [entry]
    assert (place / "notes.txt").exists()
    assert (place / "UPPER.kv").exists()
    assert secret.exists()
    assert tier.load("a" * 64) is None


def test_the_least_recently_used_go_when_the_limit_is_reached(place: Path) -> None:
    one = len(written(Snapshots(place, IDENTITY, 1).entry([1], 0), BLOB))
    tier = Snapshots(place, IDENTITY, 3 * one)
    entries = [keep(tier, number) for number in (1, 2, 3)]
    for age, entry in enumerate(entries):
        os.utime(place / f"{entry.key}.kv", (age, age))
    assert tier.load(entries[0].key) == BLOB
    tier.touch(entries[1].key)
    last = keep(tier, 4)
    assert {entry.key for entry in tier.index()} == {entries[0].key, entries[1].key, last.key}
    assert sum(path.stat().st_size for path in place.iterdir()) <= 3 * one
    tier.close()


def test_files_from_a_day_that_is_yet_to_come_are_found_and_make_room_in_their_order(place: Path) -> None:
    one = len(written(Snapshots(place, IDENTITY, 1).entry([1], 0), BLOB))
    tier = Snapshots(place, IDENTITY, 3 * one)
    entries = [keep(tier, number) for number in (1, 2, 3)]
    tier.close()
    for age, entry in enumerate(entries):
        os.utime(place / f"{entry.key}.kv", (2**32 + age, 2**32 + age))
    later = Snapshots(place, IDENTITY, 3 * one)
    assert {entry.key for entry in later.index()} == {entry.key for entry in entries}
    kept = [entries[2].key, *(keep(later, number).key for number in (4, 5))]
    assert {entry.key for entry in later.index()} == set(kept)
    assert later.load(kept[0]) == BLOB
    later.close()


def test_a_segment_over_the_limit_is_not_written_and_displaces_none(place: Path) -> None:
    tier = Snapshots(place, IDENTITY, 12_000)
    entry = keep(tier, 1)
    keep(tier, 2, blob=b"x" * 12_000)
    assert tier.index() == [entry]
    tier.close()


def test_a_lowered_limit_holds_from_the_next_start_on(place: Path, tier: Snapshots) -> None:
    keep(tier, 1)
    assert Snapshots(place, IDENTITY, 0).index() == []
    assert list(place.iterdir()) == []


def test_a_limit_of_nothing_keeps_nothing(place: Path) -> None:
    tier = Snapshots(place, IDENTITY, 0)
    keep(tier, 1)
    assert list(place.iterdir()) == []


def test_dropped_and_purged_segments_are_gone_even_those_that_waited(place: Path, tier: Snapshots) -> None:
    first, second = keep(tier, 1), keep(tier, 2)
    tier.drop(first.key)
    assert tier.index() == [second]
    waiting = [tier.entry([number], 0) for number in range(10, 15)]
    for entry in waiting:
        tier.save(entry, BLOB)
    assert tier.purge() >= 1
    assert tier.flush(PATIENCE)
    tier.close()
    assert list(place.iterdir()) == []
    assert all(tier.load(entry.key) is None for entry in waiting)


def test_what_comes_faster_than_the_disk_takes_it_is_dropped(place: Path) -> None:
    tier = Snapshots(place, IDENTITY, 2**30)
    for number in range(40):
        tier.save(tier.entry([number], 0), b"x" * 2**22)
    assert tier.flush(PATIENCE)
    assert 1 <= len(tier.index()) < 40
    tier.close()


def test_closing_writes_what_waits(place: Path) -> None:
    tier = Snapshots(place, IDENTITY, 2**24)
    for number in range(4):
        tier.save(tier.entry([number], 0), BLOB)
    tier.close(PATIENCE)
    assert len(tier.index()) == 4
    tier.save(tier.entry([9], 0), BLOB)
    assert len(tier.index()) == 4


# ---- a disk that refuses, and processes that die -------------------------------------------------------------------

REFUSED = """
import resource, sys
from pathlib import Path
from edge_runtime.engine.snapshots import Snapshots
tier = Snapshots(Path(sys.argv[1]), "x", 2**30)
kept = tier.entry([1], 0)
tier.save(kept, b"k" * 1000)
assert tier.flush(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for number in (2, 3, 4):
    tier.save(tier.entry([number], 0), b"x" * 200_000)
    assert tier.flush(60)
assert tier.load(kept.key) == b"k" * 1000
assert [entry.key for entry in tier.index()] == [kept.key]
tier.close()
"""


def run(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_a_disk_that_takes_no_more_is_told_of_once_and_what_is_there_stays_readable(place: Path) -> None:
    done = run(REFUSED, place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written (File too large)") == 1
    assert [path.suffix for path in place.iterdir()] == [".kv"]


SEALED = """
import sys
from pathlib import Path
from edge_runtime import seal
place = Path(sys.argv[1])
seal.seal_child(seal.Access(read=(place,)), unsealed_ok=True)
from edge_runtime.engine.snapshots import Snapshots
tier = Snapshots(place, "x", 2**30)
known = tier.index()
for number in (2, 3):
    tier.save(tier.entry([number], 0), b"x" * 1000)
    assert tier.flush(60)
tier.close()
print(len(known), tier.load(known[0].key))
"""


def test_a_directory_that_may_only_be_read_serves_what_is_in_it_and_says_so_once(place: Path) -> None:
    tier = Snapshots(place, "x", 2**24)
    keep(tier, 1, blob=b"cells")
    done = run(SEALED, place)
    assert (done.returncode, done.stdout) == (0, "1 b'cells'\n"), done.stderr
    assert done.stderr.count("cannot be written") == 1


def test_a_directory_that_is_not_there_costs_the_tier_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tier = Snapshots(tmp_path / "absent", IDENTITY, 2**24)
    assert tier.index() == []
    entry = keep(tier, 1)
    assert tier.load(entry.key) is None
    assert capfd.readouterr().err.count("cannot be written") == 1


WRITER = """
import sys
from pathlib import Path
from edge_runtime.engine.snapshots import Snapshots
tier = Snapshots(Path(sys.argv[1]), "x", 2**28)
number = 0
while True:
    number += 1
    tier.save(tier.entry([number], 0), number.to_bytes(4, "big") * 500_000)
    if number == 3:
        print("writing", flush=True)
    tier.flush(0.003)
"""


def test_a_kill_in_the_middle_of_writing_leaves_whole_files_and_nothing_else(place: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, place], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "writing\n"
            while not list(place.glob(".*.part")):
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
        tier = Snapshots(place, "x", 2**28)
        assert list(place.glob(".*")) == []
        entries = tier.index()
        assert len(entries) == len(list(place.iterdir()))
        assert all(tier.load(entry.key) == entry.tokens[0].to_bytes(4, "big") * 500_000 for entry in entries)
        tier.close()


def test_what_another_living_process_is_writing_is_not_swept(place: Path) -> None:
    import fcntl

    part = place / f".{'c' * 64}.1000001.part"
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Snapshots(place, IDENTITY, 2**24)
        assert part.exists()
    Snapshots(place, IDENTITY, 2**24)
    assert not part.exists()


def test_sealed_children_may_write_where_they_were_told(place: Path) -> None:
    code = SEALED.replace("read=(place,)", "write=(place,)").replace("known[0].key", "tier.index()[0].key")
    done = run(code, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(place.glob("*.kv"))) == 2

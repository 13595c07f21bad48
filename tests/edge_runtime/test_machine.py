"""Cores and memory that control groups leave, read from trees of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_runtime import machine


def group(root: Path, **files: str) -> tuple[Path]:
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text, "ascii")
    return (root,)


def test_a_quota_bounds_the_cores_and_none_leaves_those_of_the_affinity(tmp_path: Path) -> None:
    own = len(os.sched_getaffinity(0))
    assert machine.cores(()) == own
    assert machine.cores(group(tmp_path, cpu__max="max 100000\n")) == own
    assert machine.cores(group(tmp_path, cpu__max="150000 100000\n")) == 1
    assert machine.cores(group(tmp_path, cpu__max="50000 100000\n")) == 1
    assert machine.cores(group(tmp_path, cpu__max="6400000 100000\n")) == own


def test_a_quota_of_the_first_version_counts_as_well(tmp_path: Path) -> None:
    files = {"cpu__cfs_quota_us": "100000\n", "cpu__cfs_period_us": "100000\n"}
    assert machine.cores(group(tmp_path, **files)) == 1
    assert machine.cores(group(tmp_path, **{**files, "cpu__cfs_quota_us": "-1\n"})) == len(os.sched_getaffinity(0))


def test_the_lowest_memory_limit_of_all_groups_holds(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    group(inner, memory__max="max\n", memory__high="900000000\n")
    group(outer, memory__max="800000000\n")
    assert machine.memory_limit((inner,)) == 900_000_000
    assert machine.memory_limit((inner, outer)) == 800_000_000
    assert machine.memory_limit(()) is None


def test_no_limit_is_none_in_both_versions(tmp_path: Path) -> None:
    assert (
        machine.memory_limit(group(tmp_path, memory__max="max", memory__limit_in_bytes="9223372036854771712")) is None
    )


@pytest.mark.parametrize("text", ["", "some", "some avg10", "full avg10=9.00", "\udcff"])
def test_pressure_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.pressure").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert machine.memory_pressure((tmp_path,)) <= 1.0


def test_pressure_is_the_share_of_the_last_ten_seconds(tmp_path: Path) -> None:
    text = "some avg10=42.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"
    assert machine.memory_pressure(group(tmp_path, memory__pressure=text)) == pytest.approx(0.425)


def test_the_groups_of_a_process_are_found_up_to_the_root(tmp_path: Path) -> None:
    lines = ["9:name=systemd:/", "4:memory:/box/one", "1:cpu:/", "0::/box.slice/one"]
    assert machine.parents(lines, tmp_path) == [
        tmp_path / "memory/box/one",
        tmp_path / "memory/box",
        tmp_path / "memory",
        tmp_path / "cpu",
        tmp_path / "box.slice/one",
        tmp_path / "box.slice",
        tmp_path,
    ]


def test_this_machine_has_memory_and_some_of_it_is_available() -> None:
    total, available = machine.memory_total(), machine.memory_available()
    assert total is not None
    assert available is not None
    assert 0 < available < total
    assert machine.memory_total(Path("/nonexistent")) is None

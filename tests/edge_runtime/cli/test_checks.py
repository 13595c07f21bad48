"""The verdicts of ``edge doctor`` on values of every kind, with no box at all."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from edge_runtime import protocol
from edge_runtime.cli import checks
from edge_runtime.cli.checks import BuildRecord, Check, Memory
from edge_runtime.cli.doctor import memory_of, processor_features
from edge_runtime.cli.output import size
from edge_runtime.errors import UnreachableError
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.scripted import json_reply

GIB = 2**30
RECORD = BuildRecord(
    version="0.3.36",
    wanted={"GGML_NATIVE": "OFF", "GGML_AVX2": "ON", "GGML_AVX512": "ON"},
    switches={"GGML_NATIVE": "OFF", "GGML_AVX2": "ON", "GGML_AVX512": "ON"},
    portable=False,
    why_portable=None,
    features=["avx2", "avx512f"],
    unused={"amx_tile": "listed, yet refused"},
)
FEATURES = frozenset({"avx2", "avx512f", "sse4_2"})


def verdict(check: Check) -> str:
    assert check.state == "ok" or check.fix, f"{check.id} has no fix"
    return check.state


def test_the_daemon_fails_where_it_is_not_there_and_where_it_is_not_ready() -> None:
    assert verdict(checks.check_daemon(samples.STATUS)) == "ok"
    absent = checks.check_daemon(UnreachableError("no daemon at /x; start it: edged"))
    assert (verdict(absent), absent.detail, absent.fix) == ("fail", "no daemon at /x", "start it: edged")
    assert verdict(checks.check_daemon(msgspec.structs.replace(samples.STATUS, ready=False))) == "fail"


def test_a_child_that_was_restarted_is_a_warning() -> None:
    engine = msgspec.structs.replace(samples.STATUS.children[0], restarts=2)
    assert verdict(checks.check_children(samples.STATUS)) == "ok"
    assert verdict(checks.check_children(msgspec.structs.replace(samples.STATUS, children=[engine]))) == "warn"


def test_a_build_for_this_processor_is_well_and_says_what_it_leaves_unused() -> None:
    check = checks.check_build(RECORD, FEATURES)
    assert verdict(check) == "ok"
    assert check.detail == "llama.cpp 0.3.36 with AVX2 AVX512; amx_tile unused: listed, yet refused"


def test_a_portable_build_is_a_warning_that_names_what_the_processor_could_use() -> None:
    record = msgspec.structs.replace(
        RECORD, portable=True, why_portable="it died of signal 4", switches={"GGML_AVX2": "ON", "GGML_AVX512": "OFF"}
    )
    check = checks.check_build(record, FEATURES)
    assert (verdict(check), check.fix) == ("warn", "edge-firmware build-llama")
    assert check.detail == "portable build (it died of signal 4); the processor could use AVX512"


def test_a_build_for_another_processor_fails_and_one_without_a_record_warns() -> None:
    assert verdict(checks.check_build(RECORD, frozenset({"avx2"}))) == "fail"
    assert verdict(checks.check_build(None, FEATURES)) == "warn"


@pytest.mark.parametrize(("free", "state"), [(0, "fail"), (GIB, "warn"), (10 * GIB, "ok")])
def test_free_disk_is_judged_by_what_an_update_needs(free: int, state: str) -> None:
    assert verdict(checks.check_disk(free, 2 * GIB)) == state


@pytest.mark.parametrize(
    ("total", "available", "running", "state"),
    [
        (GIB, GIB, False, "fail"),
        (4 * GIB, GIB, False, "warn"),
        (4 * GIB, GIB, True, "ok"),
        (4 * GIB, 3 * GIB, False, "ok"),
    ],
)
def test_memory_is_judged_by_what_the_models_need(total: int, available: int, running: bool, state: str) -> None:
    assert verdict(checks.check_memory(Memory(total, available), 2 * GIB, running=running)) == state


@pytest.mark.parametrize(("courier", "state"), [(None, "warn"), (1000, "warn"), (1001, "ok")])
def test_a_courier_without_a_user_of_its_own_is_a_warning(courier: int | None, state: str) -> None:
    assert verdict(checks.check_courier(1000, courier)) == state


def test_one_way_out_that_is_open_fails_and_is_named() -> None:
    escaped = protocol.SealAttempt(process="engine", route="UDP", refused=False, detail="sent")
    proof = protocol.SealProof(attempts=[*samples.PROOF.attempts, escaped])
    check = checks.check_seal(samples.STATUS.seal, proof)
    assert (verdict(check), check.detail) == ("fail", "open: engine: UDP (sent)")


def test_a_seal_that_misses_a_part_fails_and_one_that_nobody_tried_warns() -> None:
    missing = protocol.SealStatus(sealed=False, seccomp=True, landlock_abi=0, missing=["no Landlock: files are open"])
    assert verdict(checks.check_seal(samples.STATUS.seal, samples.PROOF)) == "ok"
    assert verdict(checks.check_seal(missing, samples.PROOF)) == "fail"
    assert verdict(checks.check_seal(samples.STATUS.seal, protocol.SealProof(attempts=[]))) == "warn"


def test_a_damaged_index_fails_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    assert verdict(checks.check_index(path)) == "ok"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)
    connection.commit()
    connection.close()
    assert verdict(checks.check_index(path)) == "ok"
    whole = path.read_bytes()
    for damage in (whole[:4096] + b"\xff" * 8192 + whole[12288:], b"not a database at all" * 500):
        path.write_bytes(damage)
        assert verdict(checks.check_index(path)) == "fail"
        assert path.read_bytes() == damage


def test_an_index_weighs_what_its_log_holds_too(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)
        connection.commit()
        log = path.with_name("index.db-wal").stat().st_size
        assert log > 2**17
        assert checks.check_index(path).detail.startswith(f"{size(path.stat().st_size + log)}, ")
    finally:
        connection.close()


def test_a_clock_before_the_installation_fails() -> None:
    assert verdict(checks.check_clock(1_800_000_000, 1_700_000_000)) == "ok"
    assert verdict(checks.check_clock(0, 1_700_000_000)) == "fail"


def test_features_are_those_that_all_cores_share(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : avx avx2\n\nprocessor : 1\nflags : avx\n", "utf-8")
    assert processor_features(cpuinfo) == {"avx"}
    assert processor_features(tmp_path / "none") == frozenset()


@pytest.mark.parametrize(("used", "state"), [(GIB, "ok"), (2 * GIB, "ok"), (2 * GIB + 1, "warn")])
def test_a_box_over_its_budget_is_told_what_to_change(used: int, state: str) -> None:
    assert verdict(checks.check_budget(used, 2 * GIB)) == state


def test_memory_is_read_in_bytes(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n", "utf-8")
    assert memory_of(meminfo) == Memory(2048 * 1024, 1024 * 1024)
    assert memory_of(tmp_path / "none") is None


def test_doctor_prints_a_fix_under_what_is_not_well_and_exits_1_where_something_failed(shell: Shell) -> None:
    done = shell.edge("doctor")
    lines = done.out.splitlines()
    assert done.code == 1
    assert lines[0].startswith("fail  daemon: no daemon at ")
    assert lines[1].startswith("      fix: start it: ")
    assert not any("fix:" in after for line, after in pairwise(lines) if line.startswith("ok"))


def test_doctor_reports_an_open_way_out_as_a_failure(shell: Shell) -> None:
    escaped = protocol.SealAttempt(process="edged", route="TCP", refused=False, detail="connected")
    with shell.daemon({"POST /edge/v1/probe": json_reply(protocol.SealProof(attempts=[escaped]))}):
        done = shell.edge("doctor", "--json")
    seal = next(check for check in done.json["checks"] if check["id"] == "seal")
    assert (done.code, seal["state"], done.json["state"]) == (1, "fail", "fail")

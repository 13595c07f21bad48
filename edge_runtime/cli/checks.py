"""What ``edge doctor`` looks at: each check takes values and gives its verdict, so that it can be tried with any."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge_runtime.cli.output import clean_line, size
from edge_runtime.errors import EdgeError
from edge_runtime.knowledge_protocol import Mount
from edge_runtime.protocol import SealProof, SealStatus, Status

State = Literal["ok", "warn", "fail"]
_DISK_LEAST = 256 * 2**20  # bytes; below it a database may fail to grow
_START = "edged's log says why"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict; ``fix`` says what to do where it is not ok."""

    id: str
    state: State
    detail: str
    fix: str = ""


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What of the record of ``edge-firmware build-llama`` matters here; its further fields are its own affair."""

    version: str
    wanted: dict[str, str]  # CMake switches of the fastest build for this processor
    switches: dict[str, str]  # those of the build that is installed
    portable: bool
    why_portable: str | None
    features: list[str]  # of the processor at that time, as /proc/cpuinfo spells them
    unused: dict[str, str]  # feature: why the build leaves it unused


@dataclass(frozen=True, slots=True)
class Memory:
    total: int  # bytes
    available: int  # bytes


def check_daemon(found: Status | EdgeError) -> Check:
    if isinstance(found, EdgeError):
        what, _, fix = found.message.partition("; ")
        return Check(id="daemon", state="fail", detail=clean_line(what), fix=clean_line(fix) or _START)
    if not found.ready:
        detail = clean_line(found.detail) or "it is still starting"
        return Check(
            id="daemon", state="fail", detail=f"not ready: {detail}", fix="edge status shows which part is not"
        )
    return Check(id="daemon", state="ok", detail=f"edged {found.version} is ready at {found.socket}")


def check_children(found: Status) -> Check:
    restarted = [f"{child.name} {child.restarts} times" for child in found.children if child.restarts]
    if restarted:
        fix = "the daemon's log says why; edge events follows what happens"
        return Check(id="children", state="warn", detail=f"restarted: {', '.join(restarted)}", fix=fix)
    names = ", ".join(f"{child.name} {child.state}" for child in found.children)
    return Check(id="children", state="ok", detail=names or "none")


def check_model(name: str, trouble: str | None, detail: str = "") -> Check:
    if trouble is not None:
        return Check(id=f"model {name}", state="fail", detail=trouble, fix=f"edge model pull {name}")
    return Check(id=f"model {name}", state="ok", detail=detail)


def check_disk(free: int, largest: int) -> Check:
    """``free`` bytes at the home; ``largest`` is the largest model's, of which an update needs a second copy."""
    fix = "edge model list --installed, and: edge model remove NAME"
    if free < _DISK_LEAST:
        return Check(id="disk", state="fail", detail=f"{size(free)} free; nothing can be stored safely", fix=fix)
    if free < largest + _DISK_LEAST:
        detail = f"{size(free)} free; an update of the largest model needs {size(largest + _DISK_LEAST)}"
        return Check(id="disk", state="warn", detail=detail, fix=fix)
    return Check(id="disk", state="ok", detail=f"{size(free)} free")


def check_memory(memory: Memory, needed: int, *, running: bool) -> Check:
    """``needed`` bytes for writer and embedder together; ``running``: they are loaded already."""
    fix = "set a smaller writer in edge.toml ([models] writer = ...): edge model list shows what each needs"
    if memory.total < needed:
        detail = f"the models need {size(needed)}, and this machine has {size(memory.total)}"
        return Check(id="memory", state="fail", detail=detail, fix=fix)
    if not running and memory.available < needed:
        detail = f"the models need {size(needed)}, and {size(memory.available)} are available now"
        return Check(id="memory", state="warn", detail=detail, fix=fix)
    return Check(id="memory", state="ok", detail=f"{size(memory.available)} available; the models need {size(needed)}")


def check_budget(used: int, budget: int) -> Check:
    """What all processes of a running box take, in bytes, against what they may."""
    detail = f"the box uses {size(used)} of the {size(budget)} that it may"
    if used <= budget:
        return Check(id="budget", state="ok", detail=detail)
    fix = "raise memory.budget_bytes, or lower engine.context or engine.slots, in edge.toml"
    return Check(id="budget", state="warn", detail=f"{detail}, and refuses new work", fix=fix)


def check_courier(owner: int, courier: int | None) -> Check:
    """``owner`` is the uid of the home, ``courier`` the courier's (None: it has no user of its own)."""
    if courier is not None and courier != owner:
        return Check(id="courier", state="ok", detail=f"it runs as uid {courier}, the box belongs to uid {owner}")
    detail = f"the courier would run as uid {owner}, like the daemon: nothing keeps it out of the box's files"
    fix = "install the systemd units (firmware_tools/units): they give it a user of its own"
    return Check(id="courier", state="warn", detail=detail, fix=fix)


def check_seal(found: SealStatus, proof: SealProof) -> Check:
    """What the sealed processes found when each tried every way out on itself."""
    escaped = [attempt for attempt in proof.attempts if not attempt.refused]
    if escaped:
        ways = "; ".join(f"{one.process}: {one.route} ({clean_line(one.detail)})" for one in escaped)
        fix = (
            "stop edged and keep the box off the network until edged starts sealed; its log says what the kernel lacks"
        )
        return Check(id="seal", state="fail", detail=f"open: {ways}", fix=fix)
    if not found.sealed or found.missing:
        missing = "; ".join(clean_line(one) for one in found.missing) or "it was started unsealed"
        return Check(id="seal", state="fail", detail=missing, fix="restart edged without --unsealed on a newer kernel")
    if not proof.attempts:
        return Check(
            id="seal", state="warn", detail="no process tried any way out", fix="restart edged, then try again"
        )
    processes = len({attempt.process for attempt in proof.attempts})
    detail = f"{processes} processes tried {len(proof.attempts)} ways out: all refused"
    return Check(id="seal", state="ok", detail=f"{detail}; seccomp, Landlock ABI {found.landlock_abi}")


def check_index(path: Path) -> Check:
    """SQLite's own quick check, reading only (https://sqlite.org/pragma.html#pragma_quick_check)."""
    if not path.exists():
        return Check(id="index", state="ok", detail="no document was added yet")
    fix = "stop edged, then: edge restore FILE; or move the file away and add the documents again"
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            rows = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "unable to open" in str(error):
            return Check(id="index", state="warn", detail=f"{path} cannot be read by this user", fix="sudo edge doctor")
        return Check(id="index", state="fail", detail=f"{path}: {error}", fix=fix)
    if rows != ["ok"]:
        return Check(id="index", state="fail", detail=f"{path}: {clean_line('; '.join(rows))}", fix=fix)
    # What was added last is in SQLite's write-ahead log until a checkpoint (https://sqlite.org/wal.html).
    log = path.with_name(path.name + "-wal")
    weight = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    return Check(id="index", state="ok", detail=f"{size(weight)}, quick check passed")


def check_mounts(found: Sequence[Mount]) -> Check:
    """The indexes that answer beside the box's own."""
    broken = [one for one in found if one.trouble]
    if broken:
        detail = "; ".join(f"{one.name}: {clean_line(one.trouble)}" for one in broken)
        fix = "edge index unmount NAME, then mount the file that was exported again; edge index mounts lists them"
        return Check(id="mounts", state="warn", detail=detail, fix=fix)
    return Check(id="mounts", state="ok", detail=", ".join(one.name for one in found) or "no index is mounted")


def check_embedder(note: str) -> Check:
    """Whether the index holds the vectors of the embedder that the box has; ``note`` says how it does not."""
    if not note:
        return Check(id="vectors", state="ok", detail="the index holds this embedder's")
    what, _, fix = note.rpartition("; ")
    return Check(id="vectors", state="warn", detail=clean_line(what), fix=clean_line(fix))


def check_clock(now: float, newest: float) -> Check:
    """``newest``: modification time of the newest file of this installation; a clock before it is wrong (both Unix)."""
    today = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < newest - 86_400:
        made = time.strftime("%Y-%m-%d", time.gmtime(newest))
        detail = f"it says {today}, but this installation is from {made}: signatures and ages would be judged wrongly"
        return Check(id="clock", state="fail", detail=detail, fix="set it: timedatectl set-time, or fix the box's NTP")
    return Check(id="clock", state="ok", detail=today)


def check_build(record: BuildRecord | None, features: frozenset[str]) -> Check:
    """``record`` of the llama.cpp build; ``features`` of the processor now, as /proc/cpuinfo spells them."""
    if record is None:
        detail = "no record of how llama.cpp was built: it may crash here, or be slow"
        return Check(id="build", state="warn", detail=detail, fix="edge-firmware build-llama")
    what = f"llama.cpp {record.version} with {_switched(record.switches) or 'no extensions'}"
    lost = sorted(frozenset(record.features) - features) if features else []
    if lost:
        detail = f"{what}, built for another processor: this one lacks {', '.join(lost[:8])}"
        return Check(id="build", state="fail", detail=detail, fix="edge-firmware build-llama")
    if record.portable:
        faster = _switched({name: on for name, on in record.wanted.items() if record.switches.get(name) != on})
        detail = f"portable build ({clean_line(record.why_portable or 'asked for')}); the processor could use {faster}"
        return Check(id="build", state="warn", detail=detail, fix="edge-firmware build-llama")
    unused = "".join(f"; {name} unused: {clean_line(why)}" for name, why in record.unused.items())
    return Check(id="build", state="ok", detail=what + unused)


def _switched(switches: Mapping[str, str]) -> str:
    on = [name.removeprefix("GGML_") if value == "ON" else value for name, value in switches.items() if value != "OFF"]
    return " ".join(on)


def worst(checks: Sequence[Check]) -> State:
    order: Mapping[State, int] = {"ok": 0, "warn": 1, "fail": 2}
    return max((check.state for check in checks), key=order.__getitem__, default="ok")

"""What this machine, or the control group that we are in, lets us have: cores, memory (cgroups(7), both versions)."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60  # version 1 says "none" with a number near 2^63


@functools.cache
def control_groups() -> tuple[Path, ...]:
    """The directories of our control groups for CPU and memory, each up to its root.

    Asked first before the seal, which lets nobody read ``/proc/self/cgroup``; the answer is kept.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except (FileNotFoundError, PermissionError):
        return ()  # a kernel without them, or a sealed parent
    return tuple(parents(lines))


def parents(lines: list[str], root: Path = _GROUPS) -> list[Path]:
    """From the lines of ``/proc/self/cgroup``."""
    found: list[Path] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and not {"memory", "cpu"} & set(controllers.split(",")):
            continue
        top = root / controllers
        innermost = top / group.lstrip("/")
        found += [path for path in (innermost, *innermost.parents) if path.is_relative_to(top)]
    return found


def cores(groups: tuple[Path, ...] | None = None) -> int:
    """Cores that this process may use, by its affinity and the quota of its control groups; at least 1."""
    quotas = [quota for group in _or_ours(groups) if (quota := _quota(group)) is not None]
    # A quota of 1.5 cores stops two threads for a third of the time: one is faster.
    return max(1, min([len(os.sched_getaffinity(0)), *(math.floor(quota) for quota in quotas)]))


def memory_limit(groups: tuple[Path, ...] | None = None) -> int | None:
    """The lowest limit of our control groups, in bytes; None where they have none."""
    names = ("memory.high", "memory.max", "memory.limit_in_bytes")
    values = [_number(group / name) for group in _or_ours(groups) for name in names]
    return min((value for value in values if value is not None and value < _NO_LIMIT), default=None)


def memory_total(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of memory in this machine (proc_meminfo(5)); None where the kernel does not say."""
    return _meminfo(meminfo, "MemTotal:")


def memory_available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that could be had without swapping, as the kernel estimates."""
    return _meminfo(meminfo, "MemAvailable:")


def memory_pressure(groups: tuple[Path, ...] | None = None) -> float:
    """Share of the last ten seconds in which somebody waited for memory, in our groups or the machine (PSI); 0 to 1."""
    files = [Path("/proc/pressure/memory"), *(group / "memory.pressure" for group in _or_ours(groups))]
    return max(map(_pressure, files), default=0.0)


def _or_ours(groups: tuple[Path, ...] | None) -> tuple[Path, ...]:
    return control_groups() if groups is None else groups


def _read(path: Path) -> str:
    """Empty where it cannot be read: that controller is not there, or not in this group."""
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max": no limit


def _quota(group: Path) -> float | None:
    match _read(group / "cpu.max").split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            return int(quota) / int(period)
    quota_us, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us else None


def _pressure(path: Path) -> float:
    for line in _read(path).splitlines():
        kind, *fields = line.split()
        for field in fields if kind == "some" else ():
            name, _, value = field.partition("=")
            if name == "avg10" and value:
                return float(value) / 100
    return 0.0


def _meminfo(meminfo: Path, key: str) -> int | None:
    for line in _read(meminfo).splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None

"""The seal: one call after which a process can open no network socket and no file outside its own paths, ever again.

What is refused stands in :mod:`edge_runtime.seccomp`, how paths are closed in :mod:`edge_runtime.landlock`, the ways
out that ``edge doctor`` lets the sealed processes try in :mod:`edge_runtime.escape`. It does not open what a process
needs a socket for: that comes first.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from mimetypes import knownfiles
from pathlib import Path
from stat import S_ISSOCK
from typing import Final

from edge_runtime import escape, landlock, seccomp
from edge_runtime.errors import SealError
from edge_runtime.escape import Attempt
from edge_runtime.landlock import READ, WRITE, Grant, Right
from edge_runtime.machine import control_groups

__all__ = ["Access", "Attempt", "SealReport", "attempts", "child_ruleset", "plain_writes", "seal", "seal_child"]

# Packages of the project whose code a sealed process runs; fleet and firmware_tools are none of its business.
_PACKAGES: Final = ("edge_runtime", "models")
_LIBRARIES: Final = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_DEVICES: Final = ("/dev/zero", "/dev/random", "/dev/urandom")
# What glibc, OpenMP, ONNX Runtime and our own metrics read of the machine.
_MACHINE: Final = (
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
    "/etc/localtime",
)
_OF_PROC: Final = ("cpuinfo", "loadavg", "meminfo", "stat", "uptime")
_OF_ITSELF: Final = ("maps", "smaps_rollup", "stat", "statm", "status")
_OF_CGROUP: Final = (
    "cpu.max cpu.pressure memory.current memory.events memory.high memory.max memory.pressure "
    "memory.limit_in_bytes memory.usage_in_bytes cpu.cfs_period_us cpu.cfs_quota_us"
)

_SECCOMP_MISSING: Final = "sockets, io_uring and ptrace are not refused"
# Each version of Landlock added one guarantee (landlock(7)).
_LANDLOCK_MISSING: Final = (
    (1, "files outside its own paths can be opened"),
    (3, "files outside its own paths can be truncated"),
    (4, "a TCP socket that was opened before, or handed in, is held back by one lock and not by two"),
    (5, "devices can be driven by ioctl"),
    (6, "other processes of the same user can be sent signals"),
)


@dataclass(frozen=True, slots=True)
class Access:
    """The paths of one process, each with all below it. ``write`` includes reading; what is written must exist.

    Code (the interpreter, its libraries, the project's packages) is added by :func:`seal` itself.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class SealReport:
    """What holds now. ``missing`` has a sentence for each guarantee that this kernel cannot give."""

    sealed: bool
    seccomp: bool
    landlock_abi: int  # 0: no Landlock
    missing: tuple[str, ...]


def seal(access: Access, *, unsealed_ok: bool = False) -> SealReport:
    """Seal this process and all that it starts, for good; needs no privilege.

    Call it while the process has one thread, before any native library is imported, and after every listener is open.

    Raises:
        SealError: there are other threads, or a path to write does not exist; or, unless ``unsealed_ok``, this kernel
            cannot give every guarantee: the message names each that is missing.
    """
    return _seal(access, seccomp.DAEMON_RULES, run=True, unsealed_ok=unsealed_ok)


def seal_child(access: Access, *, unsealed_ok: bool = False, ruleset: int | None = None) -> SealReport:
    """Seal a process that only computes: as :func:`seal`, and it can start no process, run no file, accept nobody.

    Under a sealed parent both seals hold. ``ruleset`` is what :func:`child_ruleset` made of the same ``access`` before
    a fork. Raises as :func:`seal` does.
    """
    return _seal(access, seccomp.CHILD_RULES, run=False, unsealed_ok=unsealed_ok, ruleset=ruleset)


def child_ruleset(access: Access) -> int | None:
    """For a process that forks often: the paths of :func:`seal_child`, looked up once, and its filter made ready.

    None where there is no Landlock.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if (machine := seccomp.machine()) is not None:
        seccomp.encoded(machine, seccomp.CHILD_RULES)
    abi = landlock.version(library)
    if not abi:
        return None
    try:
        return landlock.ruleset(library, abi, _grants(access, run=False))
    except OSError:
        return None  # each fork then asks the kernel itself, and says what it refused


def attempts(*, listener: int | None = None) -> list[Attempt]:
    """Try every way out from inside this process, harmlessly, in about a second (:mod:`edge_runtime.escape`)."""
    return escape.attempts(listener=listener)


def plain_writes() -> None:
    """Make asyncio's stream transports write with ``send``: from Python 3.12 on they use ``sendmsg``, which is refused.

    ``sendmsg`` can carry descriptors and addresses in memory, where a filter cannot look. Call it before any
    connection is made.
    """
    selector_events = importlib.import_module("asyncio.selector_events")
    if hasattr(selector_events, "_HAS_SENDMSG"):
        selector_events._HAS_SENDMSG = False  # type: ignore[attr-defined]  # noqa: SLF001 (there is no public switch)


def _seal(
    access: Access, rules: tuple[seccomp.Rule, ...], *, run: bool, unsealed_ok: bool, ruleset: int | None = None
) -> SealReport:
    _require_one_thread()
    for path in access.write:
        if not path.exists():
            raise SealError(f"{path} is to be written, but does not exist; create it before sealing")
    library = ctypes.CDLL(None, use_errno=True)
    machine = seccomp.machine()
    abi = landlock.version(library)
    missing = [*_missing(abi, machine), *_inherited()]
    if missing and not unsealed_ok:
        raise _unsealable(missing)
    try:
        seccomp.forbid_new_privileges(library)
        if abi and ruleset is not None:
            landlock.enter(library, ruleset)
        elif abi:
            landlock.restrict(library, abi, _grants(access, run=run))
    except OSError as error:
        abi = 0
        missing.append(f"{_LANDLOCK_MISSING[0][1]} (the kernel refused Landlock: {error})")
    try:
        if machine is not None:
            seccomp.install(library, machine, rules)
    except OSError as error:
        machine = None
        missing.append(f"{_SECCOMP_MISSING} (the kernel refused the filter: {error})")
    if missing and not unsealed_ok:
        raise _unsealable(missing)
    return SealReport(sealed=not missing, seccomp=machine is not None, landlock_abi=abi, missing=tuple(missing))


def _unsealable(missing: list[str]) -> SealError:
    return SealError(
        f"the seal cannot keep every promise here: {'; '.join(missing)}. "
        "Put that right (Linux has all of it from 6.12 on), or run `edged --unsealed` to do without"
    )


def _missing(abi: int, machine: seccomp.Machine | None) -> Iterator[str]:
    if machine is None:
        yield f"{_SECCOMP_MISSING} (no table of system calls for {os.uname().machine})"
    for since, guarantee in _LANDLOCK_MISSING:
        if abi < since:
            yield f"{guarantee} (needs Landlock ABI {since}, this kernel has {abi})"


def _inherited() -> Iterator[str]:
    """What was open before stays open: a network socket that somebody left to this process would be a way out."""
    try:
        entries = list(Path("/proc/self/fd").iterdir())
    except PermissionError:
        return  # a sealed parent does not allow it, and has none to leave
    for entry in entries:
        try:
            descriptor = os.dup(int(entry.name))
        except OSError:
            continue  # the listing's own
        if not S_ISSOCK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptor) as held:
            family = held.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
            listens = held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if family != socket.AF_UNIX and not listens:
            yield f"descriptor {entry.name} is a network socket from before the seal, and stays usable (close it first)"


def _require_one_thread() -> None:
    # Not by listing them, which a sealed parent does not allow: the link count is two and one for each thread.
    threads = Path("/proc/self/task").stat().st_nlink - 2
    if threads != 1:
        raise SealError(
            f"{threads} threads run already, and the seal does not reach those that were started before; "
            "seal before importing a native library"
        )


def _grants(access: Access, *, run: bool) -> Iterator[Grant]:
    for path in access.read:
        yield Grant(path, READ)
    for path in access.write:
        yield Grant(path, WRITE)
    yield from _code(run=run)
    yield Grant(Path("/dev/null"), Right.READ_FILE | Right.WRITE_FILE)
    for name in (*_DEVICES, *_MACHINE, *knownfiles):
        yield Grant(Path(name), READ)
    for path in _proc_files():
        yield Grant(path, READ, hold=True)
    for path in _cgroup_files():
        yield Grant(path, READ)


def _proc_files() -> Iterator[Path]:
    proc = Path("/proc")
    pressure = proc / "pressure"
    yield from (proc / name for name in _OF_PROC)
    yield from (pressure / name for name in ("cpu", "memory", "io"))
    yield from (proc.joinpath("self").resolve() / name for name in _OF_ITSELF)


def _code(*, run: bool) -> Iterator[Grant]:
    for place in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *_LIBRARIES}:
        yield Grant(Path(place), READ)
    root = Path(__file__).resolve().parent.parent
    # The import system lists the directory that packages lie in; of the files there it needs only our packages'.
    yield Grant(root, Right.READ_DIR)
    for name in _PACKAGES:
        yield Grant(root / name, READ)
    if run:
        interpreter = Path(sys.executable).resolve()
        yield Grant(interpreter, READ | Right.EXECUTE)
        loader = _loader(interpreter)
        if loader is not None:
            yield Grant(loader, READ | Right.EXECUTE)


def _loader(program: Path) -> Path | None:
    """The dynamic loader that an ELF file names in its PT_INTERP segment (elf(5)); the kernel runs it too."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return None
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            file.seek(table + index * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == 3:
                file.seek(offset)
                return Path(os.fsdecode(file.read(length).rstrip(b"\0")))
    return None


def _cgroup_files() -> Iterator[Path]:
    """The limits of the control groups that this process is in, up to their root."""
    for directory in control_groups():
        yield from (directory / name for name in _OF_CGROUP.split())

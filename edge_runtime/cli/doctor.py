"""``edge doctor``: every check of the box in one go, with a fix under each that is not well.

What concerns the seal is asked of the sealed processes: an attempt of this process would prove nothing.
"""

from __future__ import annotations

import pwd
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import msgspec

import edge_runtime
from edge_runtime import config
from edge_runtime.cli import checks
from edge_runtime.cli.checks import BuildRecord, Check, Memory
from edge_runtime.cli.model import open_store
from edge_runtime.cli.output import Wrapped, paint, put, put_json, size, width
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.errors import EdgeError, ExitCode
from edge_runtime.paths import Paths, build_record
from edge_runtime.protocol import Status
from models.errors import ModelError, NotInstalledError

_SILENCE_SECONDS = 30.0  # the sealed processes try every way out meanwhile
_COURIER_USER = "edge-courier"  # as in firmware_tools/units
_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


def examine(paths: Paths) -> Iterator[Check]:
    """Every check, in the order in which a person would look."""
    with connect_sync(paths.socket, silence_s=_SILENCE_SECONDS) as box:
        found = _status(box)
        yield checks.check_daemon(found)
        if isinstance(found, Status):
            yield checks.check_children(found)
            yield checks.check_embedder(found.note)
            with suppress(EdgeError):  # an index that cannot be opened is told below
                yield checks.check_mounts(box.mounts().mounts)
        yield _seal(box, found)
    yield checks.check_build(_record(), processor_features(Path("/proc/cpuinfo")))
    yield from _resources(paths, found if isinstance(found, Status) else None)
    yield checks.check_index(paths.index)
    with suppress(OSError):
        yield checks.check_courier(paths.home.stat().st_uid, _uid(_COURIER_USER))
    yield checks.check_clock(time.time(), _newest())


def _status(box: SyncClient) -> Status | EdgeError:
    try:
        return box.status()
    except EdgeError as error:
        return error


def _seal(box: SyncClient, found: Status | EdgeError) -> Check:
    if isinstance(found, EdgeError):
        detail = "it cannot be tried: no daemon answers"
        return Check(id="seal", state="warn", detail=detail, fix="start edged, then try again")
    try:
        return checks.check_seal(found.seal, box.probe())
    except EdgeError as error:
        fix = "edge status shows whether every part runs; then try again"
        return Check(id="seal", state="warn", detail=f"it cannot be tried: {error.message}", fix=fix)


def _record() -> BuildRecord | None:
    try:
        return msgspec.json.decode(build_record(sys.prefix).read_bytes(), type=BuildRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def processor_features(cpuinfo: Path) -> frozenset[str]:
    """Features that all cores share, as the kernel lists them; empty where it lists none."""
    listed: list[frozenset[str]] = []
    with suppress(OSError):
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"flags", "Features"}:
                listed.append(frozenset(value.split()))
    return frozenset.intersection(*listed) if listed else frozenset()


def _resources(paths: Paths, running: Status | None) -> Iterator[Check]:
    """Models, disk and memory."""
    try:
        wanted = config.load(paths.config).models
    except EdgeError as error:
        yield Check(id="config", state="fail", detail=error.message, fix=f"correct {paths.config}")
        return
    store = open_store(paths)
    # A daemon may have been started with another file of settings.
    names = [wanted.writer, wanted.embedder]
    if running is not None:
        names = [running.writer or wanted.writer, running.embedder or wanted.embedder]
    needed = largest = 0
    for name in names:
        try:
            entry, installed = store.entry(name), store.get(name)
        except NotInstalledError:
            yield checks.check_model(name, "it is not installed")
            continue
        except ModelError as error:
            yield checks.check_model(name, str(error))
            continue
        needed += entry.memory_bytes
        largest = max(largest, installed.size)
        form = installed.tuned.format if installed.tuned else f"{installed.format}, not tuned"
        yield checks.check_model(
            name, None, f"{size(installed.size)}, {form}; sizes are right (edge model verify reads all)"
        )
    with suppress(OSError):
        yield checks.check_disk(shutil.disk_usage(_existing(paths.home)).free, largest)
    memory = memory_of(Path("/proc/meminfo"))
    if memory is not None:
        yield checks.check_memory(memory, needed, running=running is not None)
    if running is not None and running.memory_budget_bytes:
        yield checks.check_budget(running.memory_bytes, running.memory_budget_bytes)


def memory_of(meminfo: Path) -> Memory | None:
    """Bytes in all and available (proc_meminfo(5)); None where the kernel does not say."""
    values: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in meminfo.read_text("ascii").splitlines():
            key, _, value = line.partition(":")
            if key in {"MemTotal", "MemAvailable"}:
                values[key] = int(value.split()[0]) * 1024
    return Memory(values["MemTotal"], values["MemAvailable"]) if len(values) == 2 else None


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _newest() -> float:
    root = Path(edge_runtime.__path__[0])
    return max((path.stat().st_mtime for path in root.rglob("*.py")), default=0.0)


@click.command(short_help="Check the whole box, with a fix for each fault.")
@click.option("--json", "as_json", is_flag=True, help="The checks as JSON.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Check the daemon, the seal, the build, models, disk, memory, index, courier and clock.

    Exits with 1 where a check failed; warnings alone exit with 0.

    \b
    Example:
      edge doctor
      edge doctor --json | jq -r '.checks[] | select(.state != "ok") | .fix'
    """
    found = []
    for check in examine(Paths.from_environment()):
        found.append(check)
        if not as_json:
            _show(check)
    if as_json:
        put_json({"state": checks.worst(found), "checks": found})
    if checks.worst(found) == "fail":
        ctx.exit(ExitCode.FAILED)


def _show(check: Check) -> None:
    put(paint(f"{check.state:<6}", sys.stdout, fg=_COLORS[check.state]), end="")
    text = Wrapped(max(width() - 6, 20))
    text.write(f"{check.id}: {check.detail}")
    text.end()
    if check.fix:
        put(f"      fix: {check.fix}")

"""One file that holds what the box knows: its databases and its configuration; models can be fetched again.

A tar archive with ``manifest.json`` first (versions, sizes, SHA-256), written beside its final name and moved there
whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec

from edge_runtime.errors import RefusedError, StorageError
from edge_runtime.paths import Paths
from edge_runtime.protocol import BackupReply

FORMAT = 1
MANIFEST = "manifest.json"
INDEX, JOURNAL, CONFIG = "index.db", "journal.db", "edge.toml"
_BLOCK = 2**20


class Held(msgspec.Struct, frozen=True):
    """One file of a backup."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    program: str
    created: float  # Unix seconds
    files: list[Held]


class Copied(Protocol):
    """A database that can copy itself while it is in use."""

    def backup(self, target: Path) -> None: ...


def digest(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def write_backup(paths: Paths, name: str, *, index: Copied, journal: Copied) -> BackupReply:
    """Write ``backups/NAME.tar``.

    Raises:
        RefusedError: that name is taken.
        StorageError: the disk is full, or a database is damaged; nothing is left behind.
    """
    target = paths.backups / f"{name}.tar"
    if target.exists():
        raise RefusedError(f"{target} is there already; choose another name")
    work = paths.backups / f".{name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(mode=0o700, parents=True)
        index.backup(work / INDEX)
        journal.backup(work / JOURNAL)
        if paths.config.is_file():
            shutil.copyfile(paths.config, work / CONFIG)
        files = sorted(path for path in work.iterdir() if path.is_file())
        manifest = Manifest(
            format=FORMAT,
            program=version("edge-runtime"),
            created=time.time(),
            files=[Held(path.name, path.stat().st_size, digest(path)) for path in files],
        )
        (work / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        whole = work / "whole.tar"
        _pack(whole, [work / MANIFEST, *files])
        whole.rename(target)
    except OSError as error:
        raise StorageError(
            f"the backup could not be written to {paths.backups} ({error.strerror or error}): free some space"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return BackupReply(path=str(target), size=target.stat().st_size, files=[held.name for held in manifest.files])


def _pack(target: Path, files: list[Path]) -> None:
    with target.open("xb") as raw:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in files:
                member = tarfile.TarInfo(path.name)
                member.size, member.mode = path.stat().st_size, 0o600
                member.mtime = int(path.stat().st_mtime)
                with path.open("rb") as file:
                    archive.addfile(member, file)
        raw.flush()
        os.fsync(raw.fileno())

"""``python -m edge_runtime.daemon.restore FILE``: put a backup in place of what the box knows; ``edged`` must be down.

Everything is checked before anything is moved; what was there is kept below ``backups/replaced-*``. Models stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec

from edge_runtime.daemon.backup import CONFIG, FORMAT, INDEX, JOURNAL, MANIFEST, Manifest, digest
from edge_runtime.daemon.journal import MIGRATIONS as JOURNAL_MIGRATIONS
from edge_runtime.daemon.startup import prepare_home, take_lock
from edge_runtime.errors import EdgeError, ExitCode, StorageError
from edge_runtime.knowledge.schema import MIGRATIONS as INDEX_MIGRATIONS
from edge_runtime.knowledge.schema import version
from edge_runtime.paths import Paths

_NAMES = frozenset({INDEX, JOURNAL, CONFIG})
_BESIDE = ("", "-wal", "-shm")  # the files of one SQLite database
_NEWEST = {INDEX: INDEX_MIGRATIONS[-1].number, JOURNAL: JOURNAL_MIGRATIONS[-1].number}


def restore(paths: Paths, archive: Path) -> Path:
    """Restore ``archive``; returns the directory that now holds what was there before.

    Raises:
        RefusedError: ``edged`` runs on this home.
        StorageError: not a backup, damaged, from a newer version, or the disk is full; nothing was changed.
    """
    prepare_home(paths)
    lock = take_lock(paths)
    work = paths.backups / f".restore-{os.getpid()}"
    try:
        work.mkdir(mode=0o700)
        manifest = _unpack(archive, work)
        for held in manifest.files:
            _check(work / held.name, held.name)
        return _swap(paths, work, [held.name for held in manifest.files])
    except (OSError, tarfile.TarError) as error:
        raise StorageError(f"{archive} could not be restored ({error}): what was here is as it was") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def _unpack(archive: Path, work: Path) -> Manifest:
    with tarfile.open(archive, "r:") as tar:
        first = tar.next()
        if first is None or first.name != MANIFEST or not first.isfile() or first.size > 2**20:
            raise StorageError(f"{archive} is not a backup of this program: choose a file that edge backup wrote")
        text = tar.extractfile(first)
        try:
            manifest = msgspec.json.decode(text.read() if text is not None else b"", type=Manifest)
        except msgspec.MsgspecError as error:
            raise StorageError(f"{archive} is damaged: its manifest cannot be read ({error})") from error
        if manifest.format > FORMAT:
            raise StorageError(f"{archive} was written by a newer version ({manifest.program}): install that one first")
        expected = {held.name: held for held in manifest.files}
        if not expected.keys() <= _NAMES:
            raise StorageError(f"{archive} names files that no backup holds: {', '.join(expected.keys() - _NAMES)}")
        while (member := tar.next()) is not None:
            held = expected.get(member.name)
            source = tar.extractfile(member) if held is not None and member.isfile() else None
            if held is None or source is None or member.size != held.size:
                raise StorageError(f"{archive} is damaged: {member.name[:100]} is not as its manifest says")
            with (work / held.name).open("xb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
    for held in manifest.files:
        if not (work / held.name).is_file() or digest(work / held.name) != held.sha256:
            raise StorageError(f"{archive} is damaged: {held.name} is not as its manifest says")
    return manifest


def _check(path: Path, name: str) -> None:
    """A database must be whole, and of a schema that this version knows."""
    newest = _NEWEST.get(name)
    if newest is None:
        return
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            finding, found = connection.pragma("quick_check"), version(connection)
        finally:
            connection.close()
    except apsw.Error as error:
        raise StorageError(f"{name} in the backup is damaged: {error}") from error
    if finding != "ok":
        raise StorageError(f"{name} in the backup is damaged: {finding}")
    if found > newest:
        raise StorageError(f"{name} in the backup has schema {found}, this version knows {newest}: install a newer one")


def _swap(paths: Paths, work: Path, names: Sequence[str]) -> Path:
    """Move the present files aside and the new ones in; a failure half-way moves everything back."""
    kept = paths.backups / time.strftime(f"replaced-%Y%m%d-%H%M%S-{os.getpid()}", time.gmtime())
    kept.mkdir(mode=0o700)
    moved: list[tuple[Path, Path]] = []
    try:
        for name in sorted({INDEX, JOURNAL, *names}):
            place = paths.config if name == CONFIG else paths.home / name
            for suffix in _BESIDE if name != CONFIG else ("",):
                present = place.with_name(place.name + suffix)
                if present.exists():
                    present.rename(kept / present.name)
                    moved.append((kept / present.name, present))
            if name in names:
                (work / name).rename(place)
                moved.append((place, work / name))
    except OSError:
        for now, before in reversed(moved):
            now.rename(before)
        kept.rmdir()
        raise
    # What was derived from the former documents must not outlive them.
    for derived in (paths.snapshots, paths.scan):
        shutil.rmtree(derived, ignore_errors=True)
        derived.mkdir(mode=0o700)
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """One JSON line on stdout when done; one sentence on stderr when not."""
    parser = argparse.ArgumentParser(prog="python -m edge_runtime.daemon.restore", description="Restore a backup.")
    parser.add_argument("file", type=Path, help="a file that edge backup wrote")
    file = parser.parse_args(argv).file
    try:
        kept = restore(Paths.from_environment(), file)
    except EdgeError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    sys.stdout.write(json.dumps({"restored": str(file), "kept": str(kept)}) + "\n")
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())

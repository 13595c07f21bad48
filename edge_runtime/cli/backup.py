"""``edge backup``, ``restore`` and ``uninstall``: what a box knows, kept, put back, or removed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click

from edge_runtime.cli.documents import confirm
from edge_runtime.cli.output import clean_line, complain, put, put_json, say, size
from edge_runtime.client import connect_sync
from edge_runtime.errors import RefusedError, StorageError
from edge_runtime.paths import Paths


@click.command(short_help="Write the box's documents and index to one file.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Where the backup is, as JSON.")
def backup(*, file: Path | None, as_json: bool) -> None:
    """Write a consistent copy of what the box knows to one file, while it runs.

    Without FILE it stays in the backups folder of the box's home; with FILE it is moved there. Models are not in it:
    edge model pull fetches them again.

    \b
    Example:
      edge backup
      edge backup /mnt/usb/pump-house.backup
    """
    if file is not None and file.exists():
        raise StorageError(f"{file} is already there; name another file, or remove it")
    with connect_sync(Paths.from_environment().socket) as box:
        reply = box.backup()
    path = Path(reply.path)
    if file is not None:
        path = move(path, file)
    if as_json:
        put_json({"path": str(path), "size": reply.size, "files": reply.files})
    else:
        put(clean_line(str(path)))
        say(f"{size(reply.size)}: {', '.join(clean_line(name) for name in reply.files)}")


def move(source: Path, target: Path) -> Path:
    """Under a name of its own until it is whole, so that a full disk leaves no half backup under the name asked for."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        with source.open("rb") as inside, os.fdopen(_create(partial), "wb") as outside:
            shutil.copyfileobj(inside, outside, 2**20)
            outside.flush()
            os.fsync(outside.fileno())
        partial.replace(target)
        source.unlink()
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(
            f"{target} cannot be written: {error.strerror}; what was written is whole at {source}"
        ) from error
    return target


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


@click.command(short_help="Put a backup in place of what is there.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was restored, as JSON.")
@click.pass_context
def restore(ctx: click.Context, *, file: Path, yes: bool, as_json: bool) -> None:
    """Put a backup in place of the documents and the index that are there; the daemon must not run.

    What it replaces is kept in the backups folder of the box's home.

    \b
    Example:
      edge restore /mnt/usb/pump-house.backup
    """
    paths = Paths.from_environment()
    refuse_while_running(paths)
    if paths.index.exists() and not yes:
        confirm(f"replace what is in {clean_line(str(paths.home))} by {clean_line(str(file))}?")
    command = [sys.executable, "-P", "-m", "edge_runtime.daemon.restore", str(file.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        complain(done.stderr.strip() or f"restoring ended with code {done.returncode}")
        ctx.exit(done.returncode)
    told = json.loads(done.stdout)
    if as_json:
        put_json(told)
    else:
        say(f"restored {clean_line(told['restored'])}; what was there before is in {clean_line(told['kept'])}")


def refuse_while_running(paths: Paths) -> None:
    """Raises RefusedError where a daemon holds the home's lock."""
    try:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{paths.lock} cannot be opened: {error.strerror}; whose box is it?") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError(f"edged runs on {paths.home}; stop it first: systemctl stop edged, or end it") from None
    finally:
        os.close(descriptor)


def owned(paths: Paths) -> Iterator[Path]:
    """What is ours in the home, whether there or not: everything that this version of the project may have made."""
    for database in (paths.index, paths.reembedded, paths.journal):
        # SQLite keeps its log and its index of the log beside the file.
        yield from (database, *(database.with_name(database.name + suffix) for suffix in ("-wal", "-shm", "-journal")))
    yield from (paths.models, paths.snapshots, paths.backups, paths.exports, paths.mounts)
    yield from (paths.home / "history", paths.run)
    if paths.config.parent == paths.home:
        yield paths.config


@click.command(short_help="Remove what the box has stored.")
@click.option("--keep-backups", is_flag=True, help="Leave the backups.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was removed and what stays, as JSON.")
def uninstall(*, keep_backups: bool, yes: bool, as_json: bool) -> None:
    """Remove the index, the models, the settings and whatever else the box has stored below its home.

    It shows first what that is. Files that are not the box's stay, and the home itself stays where any is left. The
    program is not touched: pip uninstall edge-runtime removes it.

    \b
    Example:
      edge uninstall --keep-backups
    """
    paths = Paths.from_environment()
    refuse_while_running(paths)
    doomed = [path for path in owned(paths) if os.path.lexists(path)]
    if keep_backups:
        doomed = [path for path in doomed if path != paths.backups]
    weights = {path: _weight(path) for path in doomed}
    for path, weight in weights.items():
        (say if as_json else put)(f"{size(weight):>10}  {clean_line(str(path))}")
    if doomed and not yes:
        confirm("remove all of this?")
    for path in doomed:
        _remove(path)
    left = _leave(paths.home) if doomed else []
    if as_json:
        removed = [{"path": str(path), "size": weight} for path, weight in weights.items()]
        put_json({"home": str(paths.home), "removed": removed, "left": left})
    elif not doomed:
        say(f"there is nothing of a box in {clean_line(str(paths.home))}")
    elif paths.home.exists():
        holds = f", it still holds: {', '.join(clean_line(name) for name in left)}" if left else ""
        say(f"removed; {clean_line(str(paths.home))} stays{holds}")
    else:
        say(f"removed {clean_line(str(paths.home))}")


def _leave(home: Path) -> list[str]:
    """Remove the home where nothing is left in it and its own folder lets us; the names of what is left."""
    with suppress(OSError):
        home.rmdir()
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def _weight(path: Path) -> int:
    """Bytes of a file, or of the files below a folder; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        return sum(_weight(child) for child in path.iterdir())
    return path.lstat().st_size


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, onerror=_writable_first)
        else:
            path.unlink()
    except OSError as error:
        raise StorageError(f"{error.filename or path} cannot be removed: {error.strerror}; whose is it?") from error


def _writable_first(remove: Callable[[str], object], name: str, _: object) -> None:
    """A folder without write permission (0500) is made writable, and the removal tried once more."""
    Path(name).parent.chmod(0o700)
    remove(name)

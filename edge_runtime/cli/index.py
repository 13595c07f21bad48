"""``edge index``: the index as one file to carry, the indexes of others beside it, and its way to another embedder.

The commands read and write files; the daemon checks them, and reads them from its own home.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from edge_runtime.cli.backup import move
from edge_runtime.cli.documents import confirm
from edge_runtime.cli.output import clean_line, put, put_json, say, size, table
from edge_runtime.cli.progress import bars
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.errors import EdgeError, NotFoundError, RefusedError, RequestError, StorageError
from edge_runtime.knowledge_protocol import Exported, IndexReport, Mount, Progress
from edge_runtime.paths import Paths

SUFFIX = ".index"
_BLOCK = 2**20
_LOOK_SECONDS = 0.5


@click.group(short_help="Carry the index to other boxes, mount theirs, change the embedder.")
def index() -> None:
    """Carry the index to other boxes as one file, have theirs answer here too, and change the embedder.

    \b
    Example:
      edge index export pump-house -o /mnt/usb/pump-house.index
      edge index mount /mnt/usb/vendor.index --name vendor
      edge ask --collection vendor "What torque do the bolts need?"
    """


@index.command(short_help="Write collections to one file.")
@click.argument("name")
@click.option("--collection", "collections", metavar="C", multiple=True, help="Only this one; may be repeated.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Move it there.")
@click.option("--json", "as_json", is_flag=True, help="The file as JSON.")
def export(*, name: str, collections: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Write collections, or all of them, to one file that another box can mount.

    Nothing of readers is in it. Without -o it stays in the exports folder of the box's home.

    \b
    Example:
      edge index export pump-house --collection manuals -o /mnt/usb/pump-house.index
    """
    if output is not None and os.path.lexists(output):
        raise RefusedError(f"{clean_line(str(output))} is already there; name another file, or remove it")
    with connect_sync(Paths.from_environment().socket) as box:
        reply = _export(box, name, collections)
    path = Path(reply.path) if output is None else move(Path(reply.path), output)
    if as_json:
        put_json({"path": str(path), "size": reply.size, "sha256": reply.sha256, "documents": reply.documents,
                  "collections": reply.collections, "embedder": reply.embedder})  # fmt: skip
        return
    put(clean_line(str(path)))
    say(f"{size(reply.size)}, {reply.documents} documents of {', '.join(reply.collections)}")
    say(f"sha256 {reply.sha256}")


def _export(box: SyncClient, name: str, collections: tuple[str, ...]) -> Exported:
    with bars("documents") as shown, closing(box.export_index(name, collections=collections)) as steps:
        for step in steps:
            if isinstance(step, Exported):
                return step
            if isinstance(step, Progress):
                shown.update(f"exporting {name}", step.done, step.total)
    raise StorageError("the daemon said nothing of the file; its log says why")


@index.command(short_help="Have an exported index answer beside the box's own.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What its collection is asked for as: a-z, 0-9, dash and underscore.")
@click.option(
    "--uid", "uids", metavar="UID", type=click.IntRange(0), multiple=True, help="Who may read it; repeatable."
)
@click.option("--gid", "gids", metavar="GID", type=click.IntRange(0), multiple=True, help="Which group may read it.")
@click.option("--sha256", metavar="HEX", help="What edge index export said; another file is refused.")
@click.option("--json", "as_json", is_flag=True, help="The mount as JSON.")
def mount(
    *, file: Path, name: str, uids: tuple[int, ...], gids: tuple[int, ...], sha256: str | None, as_json: bool
) -> None:
    """Copy an exported index into the box's home and have it answer beside the box's own, read-only.

    Without --uid and --gid everyone who may ask may read it. Its collections are asked for as NAME or, where it has
    several, as NAME-COLLECTION.

    \b
    Example:
      edge index mount /mnt/usb/vendor.index --name vendor --gid 1001
    """
    here = Paths.from_environment()
    with connect_sync(here.socket) as box:
        if any(one.name == name for one in box.mounts().mounts):
            raise RefusedError(f"an index is mounted as {name} already; choose another name, or: edge index unmount")
        with _brought(file, here, name) as (copy, digest):
            if sha256 is not None and sha256.lower() != digest:
                raise StorageError(f"{clean_line(str(file))} is not the file that was meant; its SHA-256 is {digest}")
            done = box.mount_index(name, copy.name, sha256=digest, uids=uids, gids=gids)
    if as_json:
        put_json(done)
        return
    say(f"mounted {done.documents} documents; ask with --collection {' or '.join(done.collections)}")


@contextmanager
def _brought(file: Path, here: Paths, name: str) -> Iterator[tuple[Path, str]]:
    """A copy of ``file`` in the mounts folder and its SHA-256; removed again where the block fails."""
    target = here.mounts / f"{name}.{secrets.token_hex(4)}{SUFFIX}"
    partial = target.with_name(f".{target.name}.partial")
    try:
        try:
            with _opened(file) as inside:
                digest = _copy(inside, partial, here, str(file))
            partial.replace(target)
        except OSError as error:
            which = clean_line(str(error.filename or file))
            raise StorageError(f"{which}: {error.strerror}; the index could not be copied into the home") from error
        yield target, digest
    except EdgeError as error:
        target.unlink(missing_ok=True)
        # The daemon knows the copy; its reader knows the file.
        error.message = error.message.replace(target.name, clean_line(file.name))
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Raises RequestError: it is no plain file. Opening a pipe would wait for a writer."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RequestError(f"{clean_line(str(file))} is no file; name one that edge index export wrote")
    with os.fdopen(descriptor, "rb") as inside:
        yield inside


def _copy(inside: BinaryIO, partial: Path, here: Paths, shown: str) -> str:
    """Copy to ``partial``, flushed and the home's owner's; the SHA-256 of what was copied."""
    state, done, total = hashlib.sha256(), 0, os.fstat(inside.fileno()).st_size
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as outside, bars("bytes") as drawn:
        while block := inside.read(_BLOCK):
            outside.write(block)
            state.update(block)
            done += len(block)
            drawn.update(f"copying {shown}", done, max(total, done))
        owner = here.home.stat()
        if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
            os.fchown(outside.fileno(), owner.st_uid, owner.st_gid)
        outside.flush()
        os.fsync(outside.fileno())
    return state.hexdigest()


@index.command(short_help="Remove a mounted index.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was removed, as JSON.")
def unmount(*, name: str, yes: bool, as_json: bool) -> None:
    """Have a mounted index answer no more, and remove its copy from the box's home.

    \b
    Example:
      edge index unmount vendor
    """
    with connect_sync(Paths.from_environment().socket) as box:
        if name not in {one.name for one in box.mounts().mounts}:
            raise NotFoundError(f"no index is mounted as {name}; see which are: edge index mounts")
        if not yes:
            confirm(f"remove the mounted index {name}?")
        gone = box.unmount_index(name)
    if as_json:
        put_json(gone)
        return
    say(f"removed {name}: {size(gone.size)} freed")


@index.command(short_help="List the mounted indexes.")
@click.option("--json", "as_json", is_flag=True, help="The mounts as JSON.")
def mounts(*, as_json: bool) -> None:
    """List the indexes that answer beside the box's own, and what is wrong with them.

    \b
    Example:
      edge index mounts
    """
    with connect_sync(Paths.from_environment().socket) as box:
        found = box.mounts()
    if as_json:
        put_json(found)
        return
    if not found.mounts:
        say("no indexes are mounted; mount one: edge index mount FILE --name NAME")
        return
    for line in table(("name", "collections", "documents", "size", "state"), [_row(one) for one in found.mounts]):
        put(line)
    for one in found.mounts:
        if one.trouble:
            say(f"{one.name}: {clean_line(one.trouble)}")


def _row(one: Mount) -> tuple[str, str, int, str, str]:
    return one.name, ", ".join(one.collections), one.documents, size(one.size), "trouble" if one.trouble else "ok"


@index.command(short_help="Say what the index holds and takes.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def report(*, as_json: bool) -> None:
    """Say what the index holds, how much of the text is embedded, whose vectors it has and what it takes.

    \b
    Example:
      edge index report
    """
    with connect_sync(Paths.from_environment().socket) as box:
        found = box.index_report()
    if as_json:
        put_json(found)
        return
    for name, value in _lines(found):
        put(f"{name:<10}{value}")
    if found.note:
        say(clean_line(found.note))


def _lines(found: IndexReport) -> Iterator[tuple[str, str]]:
    yield "documents", f"{found.documents}, {found.chunks} passages, {found.windows} vectors"
    yield "embedded", f"{100 * found.coverage:.1f} % of the text"
    yield "embedder", clean_line(found.embedder)
    yield "file", f"{size(found.file_bytes)}, {size(found.free_bytes)} of it free"
    yield "scan", f"{size(found.scan_bytes)}, {'ready' if found.scan_ready else 'not ready'}"


@index.command(short_help="Embed the index anew for the present embedder.")
@click.option("--no-wait", is_flag=True, help="Come back at once; it goes on in the daemon.")
@click.option("--json", "as_json", is_flag=True, help="The report at the end, as JSON.")
def reembed(*, no_wait: bool, as_json: bool) -> None:
    """Embed every document anew after models.embedder was changed; the old index answers meanwhile.

    It goes on where it was interrupted, also after the daemon was stopped.

    \b
    Example:
      edge index reembed
    """
    with connect_sync(Paths.from_environment().socket) as box:
        begun = box.reembed_index()
        if not no_wait:
            _wait(box, begun.documents)
        found = box.index_report()
    if as_json:
        put_json(found)
    elif no_wait:
        say(f"embedding {begun.documents} documents anew; edge index report says how far it is")
    else:
        say(f"embedded {found.documents} documents anew with {clean_line(found.embedder)}")


def _wait(box: SyncClient, documents: int) -> None:
    """Raises StorageError: it stopped before the end."""
    with bars("documents") as drawn:
        while (found := box.index_report()).reembedded is not None:
            drawn.update("embedding anew", found.reembedded * documents, documents)
            time.sleep(_LOOK_SECONDS)
    if found.embedder != found.embedder_now:
        raise StorageError(found.note or "embedding anew stopped; the daemon's log says why")

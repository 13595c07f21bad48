"""``edge add``, ``docs`` and ``rm``. The command reads the files; the daemon parses them in a limited child."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from edge_runtime import config
from edge_runtime.cli import progress
from edge_runtime.cli.output import clean_line, paint, put, put_json, say, size, table
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.errors import (
    BusyError,
    DeadlineError,
    DocumentError,
    EngineError,
    ExitCode,
    NotFoundError,
    RequestError,
)
from edge_runtime.knowledge_protocol import Document
from edge_runtime.paths import Paths
from edge_runtime.protocol import DEFAULT_COLLECTION

# Faults of one file; anything else (no daemon, a full disk, no permission) ends the command.
_SKIPPED = (BusyError, DeadlineError, DocumentError, EngineError, RequestError, OSError)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file to add; ``name`` is the document's: the path below, and with, the argument that led to it."""

    path: Path
    name: str


@dataclass(slots=True)
class Tally:
    """What became of the files."""

    added: list[Document] = field(default_factory=list)
    unchanged: list[Document] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    warnings: list[tuple[str, str]] = field(default_factory=list)  # path, what to know

    def fail(self, path: Path, reason: str) -> None:
        self.failed.append((str(path), reason))


def find(arguments: Iterable[Path], tally: Tally) -> Iterator[FoundFile]:
    """Files named by ``arguments`` and those below their folders, in order of name.

    Links within an argument are followed, each folder is entered once (so a loop of links ends), and hidden entries of
    a folder are left out. What cannot be read, and a link that leads out of its argument, goes to ``tally``.
    """
    entered: set[tuple[int, int]] = set()
    for argument in arguments:
        # `edge add .` needs a name that is not a dot.
        name = argument.name if argument.name not in {"", ".."} else argument.resolve().name
        yield from _walk(argument, name, _Walk(argument.resolve(), entered, tally))


@dataclass(frozen=True, slots=True)
class _Walk:
    """One argument on its way: nothing outside ``root`` is read through a link in it."""

    root: Path
    entered: set[tuple[int, int]]
    tally: Tally


def _walk(path: Path, name: str, walk: _Walk) -> Iterator[FoundFile]:
    entered, tally = walk.entered, walk.tally
    try:
        info = path.stat()
        if stat.S_ISREG(info.st_mode):
            # A name that is not UTF-8 could not travel as JSON.
            yield FoundFile(path, os.fsencode(name).decode("utf-8", "replace"))
        elif not stat.S_ISDIR(info.st_mode):
            tally.fail(path, "it is neither a file nor a folder")
        elif (info.st_dev, info.st_ino) not in entered:
            entered.add((info.st_dev, info.st_ino))
            for child in sorted(path.iterdir()):
                if child.name.startswith("."):
                    continue
                if child.is_symlink() and not child.resolve().is_relative_to(walk.root):
                    tally.fail(child, "it is a link out of the folder; add what it points to by its own name")
                    continue
                yield from _walk(child, f"{name}/{child.name}", walk)
    except OSError as error:
        tally.fail(path, error.strerror or str(error))


def add_files(box: SyncClient, files: list[FoundFile], tally: Tally, *, collection: str, limit: int) -> None:
    """Send each file to the daemon; ``limit`` is the largest document that it takes, in bytes."""
    names: dict[str, Path] = {}
    with progress.bars("files") as bars:
        for done, file in enumerate(files):
            bars.update("adding", done, len(files), file.name)
            if file.name in names:
                tally.fail(file.path, f"{names[file.name]} has the same name; add them in two calls from other folders")
                continue
            names[file.name] = file.path
            try:
                _add(box, file, tally, collection=collection, limit=limit)
            except _SKIPPED as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else error.message
                tally.fail(file.path, reason)
        bars.update("adding", len(files), len(files))


def _add(box: SyncClient, file: FoundFile, tally: Tally, *, collection: str, limit: int) -> None:
    length = file.path.stat().st_size
    if length > limit:
        raise DocumentError(f"it has {size(length)}; the limit is {size(limit)} (knowledge.document_bytes)")
    reply = box.add_document(file.name, file.path.read_bytes(), collection=collection)
    (tally.unchanged if reply.unchanged else tally.added).append(reply.document)
    tally.warnings += [(str(file.path), warning) for warning in reply.warnings]


def report(tally: Tally) -> None:
    """Tell of the outcome on stderr: one line a fault, and the sums."""
    for path, warning in tally.warnings:
        say(f"{paint('note', sys.stderr, fg='yellow')}: {clean_line(path)}: {clean_line(warning)}")
    for path, reason in tally.failed:
        say(f"{paint('skipped', sys.stderr, fg='red')}: {clean_line(path)}: {clean_line(reason)}")
    passages = sum(document.chunks for document in tally.added)
    parts = [f"added {len(tally.added)} documents, {passages} passages"]
    if tally.unchanged:
        parts.append(f"{len(tally.unchanged)} unchanged")
    if tally.failed:
        parts.append(f"{len(tally.failed)} skipped")
    say("; ".join(parts))


@click.command(short_help="Add files and folders to the index.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The collection to add to.")
@click.option("--json", "as_json", is_flag=True, help="What became of each file, as JSON.")
@click.pass_context
def add(ctx: click.Context, *, paths: tuple[Path, ...], collection: str, as_json: bool) -> None:
    """Add Markdown, text, HTML and PDF files, and the files below folders.

    A file that is there already is replaced where its bytes differ. One that cannot be read is skipped with the reason,
    and the command then exits with 1.

    \b
    Example:
      edge add ~/manuals pump.pdf
      edge add notes.md --collection maintenance
    """
    here = Paths.from_environment()
    tally = Tally()
    files = list(find(paths, tally))
    limit = config.load(here.config).knowledge.document_bytes
    with connect_sync(here.socket) as box:
        box.status()  # no daemon is better said before the bar than after it
        add_files(box, files, tally, collection=collection, limit=limit)
    if as_json:
        put_json(
            {
                "added": tally.added,
                "unchanged": tally.unchanged,
                "failed": [{"path": path, "reason": reason} for path, reason in tally.failed],
                "warnings": [{"path": path, "warning": warning} for path, warning in tally.warnings],
            }
        )
    else:
        report(tally)
    if tally.failed:
        ctx.exit(ExitCode.FAILED)


@click.command(short_help="List the documents in the index.")
@click.option("--json", "as_json", is_flag=True, help="The documents as JSON.")
def docs(*, as_json: bool) -> None:
    """List the documents in the index.

    \b
    Example:
      edge docs
      edge docs --json | jq -r '.documents[].name'
    """
    with connect_sync(Paths.from_environment().socket) as box:
        found = box.documents()
    if as_json:
        put_json(found)
        return
    if not found.documents:
        say("no documents yet; add some: edge add PATH...")
        return
    rows = [(d.name, d.format, d.pages or "", d.characters, d.chunks, d.collection, d.id) for d in found.documents]
    for line in table(("name", "format", "pages", "characters", "passages", "collection", "id"), rows):
        put(line)


def _pick(documents: list[Document], wanted: str, collection: str | None) -> Document:
    """The one document with this id or name."""
    inside = [d for d in documents if collection is None or d.collection == collection]
    found = [d for d in inside if d.id == wanted] or [d for d in inside if d.name == wanted]
    match found:
        case [document]:
            return document
        case []:
            raise NotFoundError(f"no document has the name or id {wanted}\nsee which are there: edge docs")
        case _:
            places = ", ".join(sorted(d.collection for d in found))
            raise RequestError(
                f"{wanted} is in several collections: {places}\nname one with --collection, or use the id"
            )


@click.command(short_help="Remove documents and all that was derived from them.")
@click.argument("wanted", metavar="DOC...", nargs=-1, required=True)
@click.option("--collection", help="The collection, where a name is in several.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was removed and purged, as JSON.")
def rm(*, wanted: tuple[str, ...], collection: str | None, yes: bool, as_json: bool) -> None:
    """Remove documents by name or id, and purge what was derived from them.

    Passages, vectors, cached answers and snapshots of the model's memory go with a document. The file that it was read
    from is not touched.

    \b
    Example:
      edge rm manuals/pump.md
      edge rm --yes notes.md logbook.txt
    """
    with connect_sync(Paths.from_environment().socket) as box:
        known = box.documents().documents
        chosen = {document.id: document for document in (_pick(known, name, collection) for name in wanted)}
        if not yes:
            confirm(f"remove {', '.join(clean_line(d.name) for d in chosen.values())} and what was derived from it?")
        removed: list[str] = []
        purged: dict[str, int] = {}
        for document in chosen.values():
            reply = box.remove_document(document.id)
            removed += reply.removed
            for what, count in reply.purged.items():
                purged[what] = purged.get(what, 0) + count
            say(f"removed {clean_line(document.name)}")
    if as_json:
        put_json({"removed": removed, "purged": purged})
    else:
        say("purged " + (", ".join(f"{count} {clean_line(what)}" for what, count in purged.items()) or "nothing more"))


def confirm(question: str) -> None:
    """Ask on stderr; Abort unless the answer is yes. Without a terminal nobody can be asked: UsageError."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; add --yes")
    click.confirm(question, abort=True, err=True)

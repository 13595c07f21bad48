"""``edge add``, ``docs`` and ``rm``. The command reads the files; the daemon parses them in a limited child."""

from __future__ import annotations

import sys
from datetime import date as day
from pathlib import Path

import click

from edge_runtime import config
from edge_runtime.cli.adding import Tally, Terms, add_files
from edge_runtime.cli.output import clean_line, put, put_json, say, size, table
from edge_runtime.cli.walking import Total, find
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.errors import ExitCode, NotFoundError, RequestError
from edge_runtime.knowledge_protocol import Document, IndexReport
from edge_runtime.paths import Paths
from edge_runtime.protocol import DEFAULT_COLLECTION


def _check_day(_ctx: click.Context, _parameter: click.Parameter, given: str | None) -> str | None:
    if given is None:
        return None
    try:
        return day.fromisoformat(given).isoformat()
    except ValueError:
        raise click.BadParameter(f"{given} is no day: write it as YYYY-MM-DD") from None


@click.command(short_help="Add files and folders to the index.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The collection to add to.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag for each of them; may be given again.")
@click.option("--date", metavar="YYYY-MM-DD", callback=_check_day, help="The day that they are from.")
@click.option("--watch", is_flag=True, help="Then follow the folders: what changes in them changes in the index.")
@click.option("--poll", is_flag=True, help="With --watch: look every two seconds (as on network drives).")
@click.option("--json", "as_json", is_flag=True, help="What became of each file, as JSON; with --watch one line each.")
@click.pass_context
def add(
    ctx: click.Context,
    *,
    paths: tuple[Path, ...],
    collection: str,
    tags: tuple[str, ...],
    date: str | None,
    watch: bool,
    poll: bool,
    as_json: bool,
) -> None:
    """Add Markdown, text, HTML, PDF, DOCX and CSV files and source code, and the files below folders.

    A file that is there already, unchanged, is not sent; one whose bytes differ is replaced, and only what changed in
    it is embedded anew. One that cannot be read is skipped with the reason, and the command then exits with 1. After an
    interruption the same command goes on where it was. Tags and a date that are not given stay as they were.

    \b
    Example:
      edge add ~/manuals pump.pdf
      edge add notes.md --collection maintenance --tag pumps --date 2026-05-01
      edge add ~/manuals --watch
    """
    here = Paths.from_environment()
    limit = config.load(here.config).knowledge.document_bytes
    terms = Terms(collection=collection, tags=tags, date=date, limit=limit)
    with connect_sync(here.socket) as box:
        box.status()  # no daemon is better said before the bar than after it
        if watch:
            from edge_runtime.cli.watching import follow  # noqa: PLC0415 (needs a library that adding alone does not)

            follow(box, paths, terms, poll=poll, as_json=as_json)
            return
        failures = _add(box, paths, terms, as_json=as_json)
    if failures:
        ctx.exit(ExitCode.FAILED)


def _add(box: SyncClient, paths: tuple[Path, ...], terms: Terms, *, as_json: bool) -> int:
    """How many files were skipped."""
    tally = Tally(keep=as_json, tell=_keep_silent if as_json else say)
    total = Total.of(paths)
    whole = False
    try:
        add_files(box, find(paths, tally.fail), tally, terms, total=total)
        whole = True
    finally:
        total.stop()
        if as_json:
            _put_tally(tally)
        else:
            say(str(tally))
        if not whole:
            say("not all was added; the same command goes on from there: what is in the index is not sent again")
    return tally.failures


def _keep_silent(_: str) -> None:
    pass


def _put_tally(tally: Tally) -> None:
    put_json(
        {
            "added": tally.added,
            "unchanged": tally.unchanged,
            "failed": [{"path": path, "reason": reason} for path, reason in tally.failed],
            "warnings": [{"path": path, "warning": warning} for path, warning in tally.warnings],
            "passages": tally.passages,
            "embedded": tally.embedded,
            "reused": tally.reused,
        }
    )


@click.command(short_help="List the documents in the index.")
@click.argument("action", required=False, metavar="[compact]", type=click.Choice(["compact"]))
@click.option("--stats", is_flag=True, help="What the index holds and takes, instead of the list.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only documents with this tag; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def docs(*, action: str | None, stats: bool, tags: tuple[str, ...], as_json: bool) -> None:
    """List the documents in the index; tell what it takes; give back what removed documents have left.

    \b
    Example:
      edge docs
      edge docs --json | jq -r '.documents[].name'
      edge docs --stats
      edge docs compact
    """
    with connect_sync(Paths.from_environment().socket) as box:
        if action == "compact":
            _compact(box, as_json=as_json)
            return
        if stats:
            report = box.index_report()
            put_json(report) if as_json else _put_report(report)
            return
        found = box.documents()
    documents = [document for document in found.documents if set(tags) <= set(document.tags)]
    if as_json:
        put_json({"documents": documents})
        return
    if not documents:
        say("no documents yet; add some: edge add PATH..." if not tags else "no document has these tags")
        return
    head = ("name", "format", "pages", "characters", "passages", "date", "tags", "collection", "id")
    rows = [
        (d.name, d.format, d.pages or "", d.characters, d.chunks, d.date or "", " ".join(d.tags), d.collection, d.id)
        for d in documents
    ]
    for line in table(head, rows):
        put(line)


def _compact(box: SyncClient, *, as_json: bool) -> None:
    done = box.compact_index()
    if as_json:
        put_json(done)
    else:
        say(f"the index took {size(done.before_bytes)} and takes {size(done.after_bytes)}")


def _put_report(report: IndexReport) -> None:
    rows: list[tuple[str, str]] = [
        ("documents", str(report.documents)),
        ("passages", str(report.chunks)),
        ("windows", str(report.windows)),
        ("sentences", str(report.sentences)),
        ("embedded", f"{_percent(report.coverage)} of the text"),
        ("embedder", report.embedder),
        ("file", f"{size(report.file_bytes)}, of which compacting gives back {size(report.free_bytes)}"),
        ("scan", f"{size(report.scan_bytes)}, {'ready' if report.scan_ready else 'being built'}"),
        ("epoch", str(report.epoch)),
    ]
    if report.embedder_now != report.embedder:
        rows.append(("configured", f"{report.embedder_now}; change over with: edge index reembed"))
    if report.reembedded is not None:
        rows.append(("embedded anew", _percent(report.reembedded)))
    for name, value in rows:
        put(f"{name:<14}{clean_line(value)}")


def _percent(share: float) -> str:
    """Rounded down: what is not whole does not read so."""
    return f"{int(share * 1000) / 10:g} %"


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


def _tagged(documents: list[Document], tags: tuple[str, ...], collection: str | None) -> list[Document]:
    found = [d for d in documents if set(tags) <= set(d.tags) and collection in {None, d.collection}]
    if not found:
        raise NotFoundError(f"no document has the tags {' '.join(tags)}\nsee which are there: edge docs")
    return found


@click.command(short_help="Remove documents and all that was derived from them.")
@click.argument("wanted", metavar="DOC...", nargs=-1)
@click.option(
    "--tag", "tags", metavar="TAG", multiple=True, help="All documents with this tag (or, given again, both)."
)
@click.option("--collection", help="The collection, where a name is in several.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was removed and purged, as JSON.")
def rm(*, wanted: tuple[str, ...], tags: tuple[str, ...], collection: str | None, yes: bool, as_json: bool) -> None:
    """Remove documents by name, id or tag, and purge what was derived from them.

    Passages, vectors, cached answers and snapshots of the model's memory go with a document. The file that it was read
    from is not touched.

    \b
    Example:
      edge rm manuals/pump.md
      edge rm --yes notes.md logbook.txt
      edge rm --tag draft
    """
    if not wanted and not tags:
        raise click.UsageError("name the documents, or a tag with --tag")
    with connect_sync(Paths.from_environment().socket) as box:
        known = box.documents().documents
        chosen = {document.id: document for document in (_pick(known, name, collection) for name in wanted)}
        if tags:
            chosen |= {document.id: document for document in _tagged(known, tags, collection)}
        if not yes:
            confirm(f"remove {_summary(list(chosen.values()))} and what was derived from it?")
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


def _summary(documents: list[Document]) -> str:
    names = [clean_line(document.name) for document in documents[:10]]
    rest = len(documents) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


def confirm(question: str) -> None:
    """Ask on stderr; Abort unless the answer is yes. Without a terminal nobody can be asked: UsageError."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; add --yes")
    click.confirm(question, abort=True, err=True)

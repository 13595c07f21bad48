"""``edge model``: what is in the catalogue and the store. Fetching and tuning run as processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from edge_runtime import config
from edge_runtime.cli import loading, progress, tools
from edge_runtime.cli.documents import confirm
from edge_runtime.cli.output import Wrapped, clean_line, paint, put, put_json, say, size, table, width
from edge_runtime.cli.tune import tune
from edge_runtime.errors import ExitCode
from edge_runtime.model_protocol import ModelState
from edge_runtime.paths import Paths
from models.catalog import Entry
from models.errors import DamagedFileError, NotInstalledError
from models.records import Installed
from models.store import Store


def open_store(paths: Paths) -> Store:
    return Store(paths.models, config.load(paths.config).models.quota_bytes)


def _state(store: Store, name: str) -> tuple[str, Installed | None]:
    try:
        found = store.get(name)
    except NotInstalledError:
        return "-", None
    except DamagedFileError:
        return "damaged", None
    return ("installed" if found.tuned is None else f"tuned {found.tuned.format}"), found


def _facts(store: Store, entry: Entry) -> dict[str, Any]:
    state, found = _state(store, entry.name)
    return {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "licence": entry.licence,
        "parameters": entry.parameters,
        "format": entry.format,
        "size": entry.size,
        "context": entry.context,
        "memory_bytes": entry.memory_bytes,
        "good_at": entry.good_at,
        "state": state,
        "tuned": found.tuned if found else None,
        "recorded": list(found.recorded) if found else [],
    }


@click.group(short_help="List, fetch, load, check, tune and remove models.")
def model() -> None:
    """List, fetch, load, check, tune and remove models.

    \b
    Example:
      edge model list
      edge model pull smollm2-135m-instruct
    """


@model.command("list", short_help="List the catalogue, and what is installed.")
@click.option("--installed", is_flag=True, help="Only what is installed.")
@click.option("--json", "as_json", is_flag=True, help="The models as JSON.")
def list_models(*, installed: bool, as_json: bool) -> None:
    """List the models of the catalogue, which of them are installed, and which a running daemon has in memory.

    \b
    Example:
      edge model list --installed
    """
    paths = Paths.from_environment()
    store, states = open_store(paths), loading.states(paths)
    found = [{**_facts(store, entry), **_in_memory(states.get(entry.name))} for entry in store.catalogue().values()]
    if installed:
        found = [facts for facts in found if facts["state"] != "-"]
    if as_json:
        put_json({"models": found})
        return
    rows = [
        (f["name"], f["kind"], f["format"], _size(f["size"]), _size(f["memory_bytes"]), _told(f, states)) for f in found
    ]
    for line in table(("name", "kind", "format", "size", "memory", "state"), rows):
        put(line)


def _in_memory(state: ModelState | None) -> dict[str, Any]:
    """``loaded`` is null where no daemon knows of it."""
    return {"loaded": state and state.state != "unloaded", "pinned": state and state.pinned}


def _told(facts: dict[str, Any], states: Mapping[str, ModelState]) -> str:
    state = states.get(facts["name"])
    return ", ".join(filter(None, (facts["state"], loading.memory(state) if state is not None else "")))


def _size(count: int | None) -> str:
    return "?" if count is None else size(count)


@model.command(short_help="Show one model of the catalogue.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The entry as JSON.")
def show(*, name: str, as_json: bool) -> None:
    """Show one model: where it comes from, what it needs, what tuning measured.

    \b
    Example:
      edge model show qwen2.5-coder-0.5b-instruct
    """
    store = open_store(Paths.from_environment())
    entry = store.entry(name)
    facts = _facts(store, entry)
    if as_json:
        files = [
            {
                "role": file.role,
                "name": file.name,
                "size": file.size,
                "sha256": file.sha256,
                "digest_source": file.digest_source,
                "sources": [str(source) for source in file.sources],
            }
            for file in entry.files
        ]
        put_json({**facts, "files": files})
        return
    put(paint(clean_line(entry.title), sys.stdout, bold=True))
    for label, text in (
        ("name", entry.name),
        ("kind", f"{entry.kind}, {entry.parameters / 1e6:.0f} million parameters, {entry.format}"),
        ("licence", entry.licence),
        ("context", f"{entry.context} tokens"),
        ("memory", _size(entry.memory_bytes)),
        ("state", facts["state"]),
        ("good at", entry.good_at),
    ):
        _field(label, text)
    for file in entry.files:
        _field(file.role, f"{file.name}, {_size(file.size)}")
        _field("", f"sha256 {file.sha256}: {file.digest_source}" if file.sha256 else "sha256 recorded at first fetch")
        for source in file.sources:
            _field("", str(source))
    if facts["tuned"] is not None:
        _field("tuned", ", ".join(f"{key} {value}" for key, value in facts["tuned"].figures.items()))


def _field(label: str, text: str) -> None:
    put(f"{label:<10}", end="")
    value = Wrapped(max(width() - 10, 20))
    value.write(" ".join(text.split()))
    value.end()


@model.command(short_help="Fetch models into the store.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="What is there now, as JSON.")
def pull(*, names: tuple[str, ...], as_json: bool) -> None:
    """Fetch models into the store, by running edge-firmware fetch: nothing of edge itself touches a network.

    An interrupted fetch goes on where it stopped.

    \b
    Example:
      edge model pull smollm2-135m-instruct
    """
    store = open_store(Paths.from_environment())
    for name in names:
        store.entry(name)
    command = [*tools.beside_python("edge-firmware"), "fetch", *names, "--store", str(store.root), "--json"]
    tools.run_lines(command)
    fetched = {name: store.get(name) for name in names}
    if as_json:
        models = [{"name": n, "size": found.size, "recorded": list(found.recorded)} for n, found in fetched.items()]
        put_json({"store": str(store.root), "models": models})
        return
    for name, found in fetched.items():
        say(f"{name}: {size(found.size)} in {clean_line(str(store.root))}")
        for role in found.recorded:
            say(f"{name}: no public record of the {role} file's digest is known; the one fetched now was recorded")


@model.command(short_help="Remove a model from the store.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was removed, as JSON.")
def remove(*, names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove models, what tuning made of them, and unfinished downloads of them; none, where one is not there.

    \b
    Example:
      edge model remove smollm2-135m-instruct
    """
    paths = Paths.from_environment()
    store = open_store(paths)
    used = config.load(paths.config).models
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if not store.holds(name):
            raise NotInstalledError(f"{clean_line(name)} is not installed; `edge model list` shows what is")
    for name in wanted:
        if name in {used.writer, used.embedder}:
            say(f"{name} is what this box is set up with; the daemon will not start without it")
    if not yes:
        confirm(f"remove {', '.join(wanted)}?")
    freed: dict[str, int] = {}
    for name in wanted:
        freed[name] = store.remove(name)
        say(f"removed {name}: {size(freed[name])} freed")
    if as_json:
        put_json({"removed": [{"name": name, "freed": count} for name, count in freed.items()]})


@model.command(short_help="Hash the files of installed models again.")
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.pass_context
def verify(ctx: click.Context, *, names: tuple[str, ...], as_json: bool) -> None:
    """Hash every file of the models again (all that are installed, where none is named).

    A damaged file is removed, so that a pull fetches it anew; the command then exits with 1.

    \b
    Example:
      edge model verify
    """
    store = open_store(Paths.from_environment())
    findings: list[tuple[str, str, str | None]] = []
    with progress.bars("bytes") as bars:
        for name in names or store.names():
            found = store.verify(name, _step(bars, name))
            findings += [(name, finding.role, finding.problem) for finding in found]
    if as_json:
        put_json({"files": [{"model": m, "role": r, "problem": p} for m, r, p in findings]})
    else:
        for name, role, problem in findings:
            word = paint("ok", sys.stdout, fg="green") if problem is None else paint("damaged", sys.stdout, fg="red")
            put(f"{word}  {name} {role}" + (f" {clean_line(problem)}" if problem else ""))
    if any(problem for _, _, problem in findings):
        ctx.exit(ExitCode.FAILED)


def _step(bars: progress.Bars, name: str) -> Any:
    return lambda role, done, total: bars.update(f"{name} {role}", done, total)


model.add_command(tune)
for command in loading.COMMANDS:
    model.add_command(command)

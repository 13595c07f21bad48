"""The daemon as an operator sees it: ``status``, ``requests``, ``cancel``, ``events``, ``paths``."""

from __future__ import annotations

import sys

import click

from edge_runtime.cli.output import clean_line, dumps, paint, put, put_json, say, size, table
from edge_runtime.client import connect_sync
from edge_runtime.errors import EdgeError, ExitCode
from edge_runtime.paths import Paths, build_record
from edge_runtime.protocol import Status

_SILENCE_SECONDS = 10.0  # these calls do no work in the daemon: silence is a fault


def _lines(status: Status) -> list[tuple[str, str]]:
    seal = status.seal
    sealed = "sealed" if seal.sealed else "NOT SEALED: " + "; ".join(seal.missing)
    threads = f", {status.threads} thread{'s' * (status.threads != 1)} now" if status.threads else ""
    lines = [
        ("daemon", "ready" if status.ready else f"not ready: {status.detail or 'starting'}"),
        ("version", f"{status.version}, protocol {status.protocol}, up {_span(status.uptime_s)}"),
        ("seal", sealed),
        ("writer", f"{status.writer or 'none'}, context {status.context} tokens{threads}"),
        ("embedder", status.embedder or "none"),
    ]
    for child in status.children:
        restarts = f", restarted {child.restarts} time{'s' * (child.restarts != 1)}" if child.restarts else ""
        detail = f", {child.detail}" if child.detail else ""
        # The others are the configured ones, which are named above.
        model = f", {child.model}" if child.model not in (None, status.writer, status.embedder) else ""
        lines.append((child.name, f"{child.state}, process {child.pid or 'none'}{model}{restarts}{detail}"))
    lines += [
        ("index", f"{status.documents} documents, {status.chunks} passages"),
        ("requests", f"{status.requests_running} running, {status.requests_waiting} waiting"),
        ("memory", _memory(status)),
        ("socket", status.socket),
    ]
    if status.note:
        lines.append(("note", clean_line(status.note)))
    if status.listen:
        lines.append(("listens on", status.listen))
    return lines


def _memory(status: Status) -> str:
    told = f"{size(status.memory_bytes)} of a budget of {size(status.memory_budget_bytes)}"
    if status.memory_bytes <= status.memory_budget_bytes:
        return told
    return f"{told}: NEW REQUESTS ARE REFUSED; raise [memory] budget_bytes, or lower [engine] context"


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    named = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    parts = [f"{count} {unit}" for count, unit in named if count]
    return " ".join(parts[:2]) or "0 s"


def _state_color(status: Status) -> str:
    return "green" if status.ready else "yellow"


@click.command(short_help="Say whether the daemon is ready.")
@click.option("--json", "as_json", is_flag=True, help="The status as JSON.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Say whether the daemon is ready, and what it runs.

    Exits with 0 when it is ready, 1 when it is not, 3 when it cannot be reached.

    \b
    Example:
      edge status
      edge status --json | jq .ready
    """
    with connect_sync(Paths.from_environment().socket, silence_s=_SILENCE_SECONDS) as box:
        found = box.status()
    if as_json:
        put_json(found)
    else:
        for name, text in _lines(found):
            value = (
                paint(clean_line(text), sys.stdout, fg=_state_color(found)) if name == "daemon" else clean_line(text)
            )
            put(f"{name:<12}{value}")
    if not found.ready:
        ctx.exit(ExitCode.FAILED)


@click.command(short_help="List what the daemon is working on.")
@click.option("--json", "as_json", is_flag=True, help="The requests as JSON.")
def requests(*, as_json: bool) -> None:
    """List the requests that run or wait, the oldest first.

    \b
    Example:
      edge requests
    """
    with connect_sync(Paths.from_environment().socket, silence_s=_SILENCE_SECONDS) as box:
        found = box.requests()
    if as_json:
        put_json(found)
        return
    if not found.requests:
        say("nothing runs or waits")
        return
    rows = [(r.id, r.kind, r.peer, r.priority, r.state, f"{r.age_s:.1f} s", r.tokens) for r in found.requests]
    for line in table(("id", "kind", "peer", "class", "state", "age", "tokens"), rows, shrink=2):
        put(line)


@click.command(short_help="Stop one request.")
@click.argument("request_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="What was cancelled, as JSON.")
def cancel(*, request_id: str, as_json: bool) -> None:
    """Stop one request; its client gets what there is so far, marked as cancelled.

    \b
    Example:
      edge requests
      edge cancel 3f1c
    """
    with connect_sync(Paths.from_environment().socket, silence_s=_SILENCE_SECONDS) as box:
        box.cancel(request_id)
    if as_json:
        put_json({"cancelled": request_id})
    else:
        say(f"cancelled {clean_line(request_id)}")


@click.command(short_help="Follow what happens, one JSON line each.")
def events() -> None:
    """Follow what happens in the daemon, one JSON object a line, until ctrl-c.

    \b
    Example:
      edge events | jq -r '.kind'
    """
    with connect_sync(Paths.from_environment().socket) as box:
        for event in box.events():
            put(dumps(event, indent=None))
    raise EdgeError("the daemon stopped\nfollow again once it is back: edge status")


@click.command(short_help="Say where everything is.")
@click.option("--json", "as_json", is_flag=True, help="The paths as JSON.")
def paths(*, as_json: bool) -> None:
    """Say where the box keeps what it owns, and which environment variables move it.

    \b
    Example:
      edge paths
      du -sh "$(edge paths --json | jq -r .models)"
    """
    here = Paths.from_environment()
    found = {
        "home": here.home,
        "config": here.config,
        "socket": here.socket,
        "log": here.run / "edged.log",
        "token": here.token,
        "models": here.models,
        "index": here.index,
        "snapshots": here.snapshots,
        "backups": here.backups,
        "exports": here.exports,
        "mounts": here.mounts,
        "build": build_record(sys.prefix),
    }
    if as_json:
        put_json({name: str(path) for name, path in found.items()})
        return
    for name, path in found.items():
        there = "" if path.exists() else paint("  (not there)", sys.stdout, dim=True)
        put(f"{name:<12}{clean_line(str(path))}{there}")
    say("moved by EDGE_HOME, EDGE_CONFIG and EDGE_SOCKET")

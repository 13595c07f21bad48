"""``edge adapter``: LoRA adapters of the writer. The command reads the file; the daemon checks and keeps it."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime import config
from edge_runtime.cli.documents import confirm
from edge_runtime.cli.output import clean_line, put, put_json, say, size, table
from edge_runtime.client import connect_sync
from edge_runtime.errors import NotFoundError, RequestError, TooLargeError
from edge_runtime.paths import Paths

_NAMES = 4096  # bytes of a body that are not the file


@click.group(short_help="List, add and remove LoRA adapters of the writer.")
def adapter() -> None:
    """List, add and remove LoRA adapters: small files that change how the writer writes, request by request.

    \b
    Example:
      edge adapter add pumps.gguf --name pumps
      edge adapter list
    """


@adapter.command(short_help="Add an adapter.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What requests call it: a-z, 0-9, dot, dash and underscore.")
@click.option("--base", metavar="MODEL", help="The installed writer that it was made for, where it is not the box's.")
@click.option("--json", "as_json", is_flag=True, help="The adapter as JSON.")
def add(*, file: Path, name: str, base: str | None, as_json: bool) -> None:
    """Add a LoRA adapter in GGUF that was made for a writer of this box.

    \b
    Example:
      edge adapter add pumps.gguf --name pumps
    """
    here = Paths.from_environment()
    # It travels in base64: four characters for three bytes.
    limit = (config.load(here.config).server.body_bytes - _NAMES) // 4 * 3
    try:
        if not file.is_file():
            raise RequestError(f"{clean_line(str(file))} is no file; name one that holds an adapter in GGUF")
        length = file.stat().st_size
        if length > limit:
            raise TooLargeError(
                f"{clean_line(str(file))} has {size(length)}, and {size(limit)} can be sent; raise [server] body_bytes"
            )
        content = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{clean_line(str(file))} cannot be read: {error.strerror}; name a file that can") from error
    with connect_sync(here.socket) as box:
        reply = box.add_adapter(name, content, base=base)
    if as_json:
        put_json(reply)
        return
    state = "was there already" if reply.unchanged else "added"
    say(f"{name} {state}: rank {reply.adapter.rank}, {size(reply.adapter.size)}, for {clean_line(reply.adapter.base)}")


@adapter.command("list", short_help="List the adapters.")
@click.option("--json", "as_json", is_flag=True, help="The adapters as JSON.")
def list_adapters(*, as_json: bool) -> None:
    """List the adapters, and the models that they are for.

    \b
    Example:
      edge adapter list
    """
    with connect_sync(Paths.from_environment().socket) as box:
        found = box.adapters()
    if as_json:
        put_json(found)
        return
    if not found.adapters:
        say("no adapters yet; add one: edge adapter add FILE --name NAME")
        return
    rows = [
        (one.name, one.base, one.rank, size(one.size), "" if one.base_installed else "base not installed")
        for one in found.adapters
    ]
    for line in table(("name", "base", "rank", "size", "state"), rows):
        put(line)
    for base in sorted({one.base for one in found.adapters if not one.base_installed}):
        say(f"{clean_line(base)} is not installed, so its adapters cannot be used: edge model pull {clean_line(base)}")


@adapter.command(short_help="Remove adapters.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was removed, as JSON.")
def rm(*, names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove adapters by name; none of them, where one is not there. Texts that are being written with one go on to
    their end.

    \b
    Example:
      edge adapter rm pumps
    """
    wanted = list(dict.fromkeys(names))
    with connect_sync(Paths.from_environment().socket) as box:
        known = {one.name for one in box.adapters().adapters}
        for name in wanted:
            if name not in known:
                raise NotFoundError(f"no adapter is called {name}; see which are there: edge adapter list")
        if not yes:
            confirm(f"remove {', '.join(wanted)}?")
        removed = [box.remove_adapter(name) for name in wanted]
    if as_json:
        put_json({"removed": [{"name": one.removed, "freed": one.freed} for one in removed]})
        return
    for one in removed:
        say(f"removed {clean_line(one.removed)}: {size(one.freed)} freed")

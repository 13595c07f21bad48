"""``edge model load``, ``unload``, ``pin`` and ``unpin``: which writers the daemon has in memory."""

from __future__ import annotations

import click

from edge_runtime.cli.output import clean_line, put_json, say, size
from edge_runtime.client import connect_sync
from edge_runtime.errors import EdgeError
from edge_runtime.model_protocol import ModelState
from edge_runtime.paths import Paths

_PEEK_SECONDS = 2.0
_json = click.option("--json", "as_json", is_flag=True, help="What is in memory of it now, as JSON.")


def states(paths: Paths) -> dict[str, ModelState]:
    """The installed writers as a daemon sees them; none where no daemon answers."""
    try:
        with connect_sync(paths.socket, silence_s=_PEEK_SECONDS) as box:
            return {state.name: state for state in box.model_states().models}
    except EdgeError:
        return {}


def memory(state: ModelState) -> str:
    """What there is to say of a writer's place in memory; nothing of one that has none."""
    words: list[str] = []
    if state.state != "unloaded":
        words.append("loaded" if state.state == "ready" else state.state)
    if state.pinned:
        words.append("pinned")
    if state.active:
        words.append("in use")
    return ", ".join(words)


@click.command(short_help="Have a writer in memory.")
@click.argument("name")
@_json
def load(*, name: str, as_json: bool) -> None:
    """Load a writer now, instead of with the first request that names it. Waits until it is there.

    It is unloaded again when it has been idle for engine.idle_seconds, or when another one needs its memory.

    \b
    Example:
      edge model load smollm2-135m-instruct
    """
    with connect_sync(Paths.from_environment().socket) as box:
        _tell(box.load_model(name), as_json=as_json)


@click.command(short_help="Give a writer's memory back.")
@click.argument("name")
@_json
def unload(*, name: str, as_json: bool) -> None:
    """Unload a writer. One that is in use, or pinned, is refused.

    \b
    Example:
      edge model unload smollm2-135m-instruct
    """
    with connect_sync(Paths.from_environment().socket) as box:
        _tell(box.unload_model(name), as_json=as_json)


@click.command(short_help="Keep a writer in memory once it is loaded.")
@click.argument("name")
@_json
def pin(*, name: str, as_json: bool) -> None:
    """Keep a writer in memory once it is loaded, until the daemon stops. For good: pinned, below [engine] in edge.toml.

    \b
    Example:
      edge model pin smollm2-135m-instruct
    """
    with connect_sync(Paths.from_environment().socket) as box:
        _tell(box.pin_model(name), as_json=as_json)


@click.command(short_help="Let a writer go again when it is idle.")
@click.argument("name")
@_json
def unpin(*, name: str, as_json: bool) -> None:
    """Let a writer go again when it is idle, or when another one needs its memory.

    \b
    Example:
      edge model unpin smollm2-135m-instruct
    """
    with connect_sync(Paths.from_environment().socket) as box:
        _tell(box.unpin_model(name), as_json=as_json)


def _tell(state: ModelState, *, as_json: bool) -> None:
    if as_json:
        put_json(state)
        return
    where = memory(state) or "not in memory"
    say(f"{clean_line(state.name)}: {where}; {size(state.memory_bytes)} when loaded")


COMMANDS = (load, unload, pin, unpin)

"""``edge model load``, ``unload``, ``pin`` and ``unpin``: which writers the daemon has in memory."""

from __future__ import annotations

from collections.abc import Callable

import click

from edge_runtime.cli.output import clean_line, put_json, say, size
from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.errors import EdgeError
from edge_runtime.model_protocol import ModelState
from edge_runtime.paths import Paths

_PEEK_SECONDS = 2.0


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


def _verb(name: str, short_help: str, change: Callable[[SyncClient, str], ModelState], told: str) -> click.Command:
    """``edge model`` and this word: the daemon changes one writer, and what has become of it is said."""

    @click.command(
        name, short_help=short_help, help=f"{told}\n\n\b\nExample:\n  edge model {name} smollm2-135m-instruct"
    )
    @click.argument("model", metavar="NAME")
    @click.option("--json", "as_json", is_flag=True, help="What is in memory of it now, as JSON.")
    def run(*, model: str, as_json: bool) -> None:
        with connect_sync(Paths.from_environment().socket) as box:
            state = change(box, model)
        if as_json:
            put_json(state)
        else:
            where = memory(state) or "not in memory"
            say(f"{clean_line(state.name)}: {where}; {size(state.memory_bytes)} when loaded")

    return run


COMMANDS = (
    _verb(
        "load",
        "Have a writer in memory.",
        SyncClient.load_model,
        "Load a writer now, instead of with the first request that names it. Waits until it is there.\n\n"
        "It is unloaded again when it has been idle for engine.idle_seconds, or when another one needs its memory.",
    ),
    _verb(
        "unload",
        "Give a writer's memory back.",
        SyncClient.unload_model,
        "Unload a writer. One that is in use, or pinned, is refused.",
    ),
    _verb(
        "pin",
        "Keep a writer in memory once it is loaded.",
        SyncClient.pin_model,
        "Keep a writer in memory once it is loaded, until the daemon stops. For good: pinned, below [engine] in "
        "edge.toml.",
    ),
    _verb(
        "unpin",
        "Let a writer go again when it is idle.",
        SyncClient.unpin_model,
        "Let a writer go again when it is idle, or when another one needs its memory.",
    ),
)

"""The program ``edge``: which subcommand lives in which module, and how an error leaves the process.

A module is imported when its command is called, so that ``edge --help`` and ``edge status`` stay quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from edge_runtime.cli.output import clean_line, complain, put, say
from edge_runtime.client import connect_sync
from edge_runtime.errors import EdgeError, ExitCode
from edge_runtime.paths import Paths
from edge_runtime.protocol import VERSION
from models.errors import ModelError

_PEEK_SECONDS = 2.0

# Section, then command: its module and what the list of commands says of it.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Questions": {
        "ask": ("ask", "Ask one question; the answer cites the documents."),
        "chat": ("chat", "Ask in a conversation at the terminal."),
        "search": ("search", "Show the passages nearest to a query."),
        "score": ("score", "Say how probable each of some choices is."),
        "eval": ("eval", "Measure search and answers on questions with known answers."),
    },
    "Documents": {
        "add": ("documents", "Add files and folders to the index."),
        "docs": ("documents", "List the documents in the index."),
        "rm": ("documents", "Remove documents and all that was derived from them."),
        "index": ("index", "Carry the index to other boxes, mount theirs, change the embedder."),
    },
    "Models": {
        "adapter": ("adapter", "List, add and remove LoRA adapters of the writer."),
        "model": ("model", "List, fetch, load, check, tune and remove models."),
    },
    "Box": {
        "status": ("box", "Say whether the daemon is ready."),
        "doctor": ("doctor", "Check the whole box, with a fix for each fault."),
        "top": ("top", "Watch what the engine is doing."),
        "requests": ("box", "List what the daemon is working on."),
        "cancel": ("box", "Stop one request."),
        "events": ("box", "Follow what happens, one JSON line each."),
        "backup": ("backup", "Write the box's documents and index to one file."),
        "restore": ("backup", "Put a backup in place of what is there."),
        "paths": ("box", "Say where everything is."),
        "uninstall": ("backup", "Remove what the box has stored."),
    },
    "More": {
        "demo": ("demo", "Start, add the sample documents and ask three questions."),
        "completion": ("completion", "Print the completion script for a shell."),
    },
}
_MODULES = {name: module for section in COMMANDS.values() for name, (module, _) in section.items()}


class Commands(click.Group):
    """The subcommands of ``COMMANDS``, each imported when it is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"edge_runtime.cli.{_MODULES[cmd_name]}")
        found = getattr(module, cmd_name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()], col_max=12)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    put(f"edge {_installed('edge-runtime')}")
    put(f"protocol {VERSION}")
    put(f"llama-cpp-python {_installed('llama-cpp-python')}")
    put(f"sqlite-vec {_installed('sqlite-vec')}")
    ctx.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the versions."
)
@click.pass_context
def edge(ctx: click.Context) -> None:
    """Ask a box's own documents, with no network.

    \b
    Examples:
      edge demo                                   see it work on the sample documents
      edge add ~/manuals                          add your own
      edge ask "What torque do the bolts need?"   a cited answer
    """
    if ctx.invoked_subcommand is None:
        put(ctx.get_help())
        say()
        say(_daemon_state())


def _daemon_state() -> str:
    with connect_sync(Paths.from_environment().socket, silence_s=_PEEK_SECONDS) as box:
        try:
            status = box.status()
        except EdgeError as error:
            return f"The daemon: {clean_line(error.message)}"
    if not status.ready:
        return f"The daemon is not ready: {clean_line(status.detail) or 'starting'}"
    return f"The daemon is ready: {status.documents} documents, {status.writer or 'no writer'}."


def run(arguments: list[str]) -> int:
    """Run ``edge`` with ``arguments``; returns the exit code (:class:`edge_runtime.errors.ExitCode`)."""
    try:
        return int(edge.main(args=arguments, prog_name="edge", standalone_mode=False) or ExitCode.OK)
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        return ExitCode.USAGE
    except click.UsageError as error:
        hint = f"\nsee: {error.ctx.command_path} --help" if error.ctx else ""
        complain(error.format_message() + hint)
        return ExitCode.USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return error.exit_code
    except EdgeError as error:
        complain(error.message)
        return error.exit_code
    except ModelError as error:
        complain(str(error))
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        say("\ninterrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left; there is nobody to tell, and the interpreter's last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED


def main() -> None:
    sys.exit(run(sys.argv[1:]))

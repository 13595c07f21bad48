"""``edge completion``: the script that teaches a shell to complete ``edge`` (click writes it)."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from edge_runtime.cli.output import put
from edge_runtime.errors import RequestError

_VARIABLE = "_EDGE_COMPLETE"  # click's own name for program `edge`


@click.command(short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Example:
      eval "$(edge completion bash)"                                  in ~/.bashrc
      eval "$(edge completion zsh)"                                   in ~/.zshrc
      edge completion fish > ~/.config/fish/completions/edge.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise RequestError(f"no completion for {shell}; there is one for bash, zsh and fish")
    put(kind(ctx.find_root().command, {}, "edge", _VARIABLE).source())

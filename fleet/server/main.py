"""``edge-fleet``: a place for the fleet server's commands; this release has no fleet server, and says so."""

from __future__ import annotations

import sys

import click

from edge_runtime.errors import ExitCode


@click.command()
@click.version_option(package_name="edge-runtime", prog_name="edge-fleet")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Release models to a fleet of boxes. This release has no fleet server: boxes work on their own."""
    click.echo("edge-fleet: this release has no fleet server; boxes work on their own, see fleet/README.md", err=True)
    ctx.exit(ExitCode.FAILED)


def main() -> None:
    """Run the command line; exit codes as :class:`edge_runtime.errors.ExitCode`."""
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    sys.exit(code)

"""``edge-courier``: in this release it checks the boundary that it has to stay behind, and carries nothing."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from edge_runtime.errors import ExitCode
from edge_runtime.paths import Paths


@click.group()
@click.version_option(package_name="edge-runtime", prog_name="edge-courier")
def commands() -> None:
    """Carry updates and messages to a box that has no network of its own."""


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output.")
@click.pass_context
def check(ctx: click.Context, *, as_json: bool) -> None:
    """Check, by trying, that this user is kept out of the box's private files; exit 1 if not."""
    paths = Paths.from_environment()
    problems = list(breaches(paths))
    if as_json:
        click.echo(
            json.dumps({"home": str(paths.home), "uid": os.getuid(), "kept_out": not problems, "problems": problems})
        )
    elif problems:
        for problem in problems:
            click.echo(f"edge-courier: {problem}", err=True)
    else:
        click.echo(f"uid {os.getuid()} is kept out of {paths.home}")
    if problems:
        ctx.exit(ExitCode.FAILED)


@commands.command()
@click.pass_context
def run(ctx: click.Context) -> None:
    """Carry. This release has nothing to carry yet: it says so and exits 1."""
    click.echo("edge-courier: this release carries nothing yet; disable edge-courier.service", err=True)
    ctx.exit(ExitCode.FAILED)


def breaches(paths: Paths) -> Iterator[str]:
    """What is wrong with the boundary between this process and the box at ``paths``, a sentence each."""
    try:
        owner = paths.home.stat().st_uid
    except OSError as error:
        yield f"{paths.home} cannot be looked at ({error.strerror}): set EDGE_HOME to the home of the box"
        return
    if os.getuid() == 0:
        yield "it runs as root, whom no file permission keeps out: run it as the user edge-courier"
        return
    if os.getuid() == owner:
        yield f"it runs as uid {owner}, which owns {paths.home}: run it as the user edge-courier"
        return
    for private in (paths.models, paths.index, paths.snapshots, paths.backups, paths.token):
        if _readable(private):
            yield f"it can read {private}: take the permission from others (chmod o-rwx)"
        if os.access(private, os.W_OK):
            yield f"it can write {private}: take the permission from others (chmod o-rwx)"


def _readable(path: Path) -> bool:
    """Whether opening it succeeds; asking for permissions would miss what the kernel adds to them."""
    try:
        kind = os.O_DIRECTORY if stat.S_ISDIR(path.stat().st_mode) else 0
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind))
    except OSError:
        return False
    return True


def main() -> None:
    """Run the command line; exit codes as :class:`edge_runtime.errors.ExitCode`."""
    try:
        code = commands.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    sys.exit(code)

"""``edge-firmware``: the commands that prepare a box. Only ``fetch``, and what calls it, downloads anything."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edge_runtime import config
from edge_runtime.errors import EdgeError, ExitCode
from edge_runtime.paths import Paths
from firmware_tools.errors import ToolError
from firmware_tools.fetch import Fetch
from firmware_tools.hub import DEFAULT_HUB, Downloads
from firmware_tools.progress import display
from models.errors import ModelError
from models.store import Store

_STORE = click.option(
    "--store", "root", type=click.Path(path_type=Path), help="The model store.  [default: models in EDGE_HOME]"
)
_QUOTA = click.option("--quota", type=click.IntRange(min=0), help="Bytes.  [default: models.quota_bytes in edge.toml]")
_HUB = click.option("--hub", default=DEFAULT_HUB, envvar="HF_ENDPOINT", show_default=True, help="The model hub.")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")


@click.group()
@click.version_option(package_name="edge-runtime", prog_name="edge-firmware")
def commands() -> None:
    """Prepare a box: fetch models, build llama.cpp for this machine, measure."""


@commands.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_STORE
@_QUOTA
@_HUB
@_JSON
def fetch(names: tuple[str, ...], root: Path | None, quota: int | None, hub: str, *, as_json: bool) -> None:
    """Fetch models of the catalogue into the store."""
    with display(as_json=as_json) as shown:
        fetching = Fetch(_store(root, quota), shown, Downloads(hub))
        try:
            for name in names:
                fetching.model(name)
        except (ToolError, ModelError) as error:
            shown.tell("error", message=str(error))
            raise


def _store(root: Path | None, quota: int | None) -> Store:
    paths = Paths.from_environment()
    return Store(root or paths.models, config.load(paths.config).models.quota_bytes if quota is None else quota)


def main() -> None:
    """Run the command line; exit codes as :class:`edge_runtime.errors.ExitCode`."""
    try:
        code = commands.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        code = ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        code = ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except EdgeError as error:
        sys.stderr.write(f"edge-firmware: {error}\n")
        code = error.exit_code
    except (ToolError, ModelError) as error:
        sys.stderr.write(f"edge-firmware: {error}\n")
        code = ExitCode.FAILED
    sys.exit(code)

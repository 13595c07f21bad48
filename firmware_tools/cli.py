"""``edge-firmware``: the commands that prepare a box. Only ``fetch``, and what calls it, downloads anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from edge_runtime import config
from edge_runtime.errors import EdgeError, ExitCode
from edge_runtime.paths import Paths
from firmware_tools.errors import ToolError
from firmware_tools.fetch import Fetch
from firmware_tools.hub import DEFAULT_HUB, Downloads
from firmware_tools.llama_build import Builder
from firmware_tools.progress import Display, display
from firmware_tools.setup import prepare, smallest_writer
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
    with _shown(as_json=as_json) as shown:
        fetching = Fetch(_store(root, quota), shown, Downloads(hub))
        for name in names:
            fetching.model(name)


@commands.command("build-llama")
@_STORE
@click.option(
    "--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A GGUF file to decode with."
)
@click.option("--portable", is_flag=True, help="The build that any machine of this architecture runs.")
@click.option("--again", is_flag=True, help="Install anew even where a good build is there.")
@_JSON
def build_llama(root: Path | None, model: Path | None, *, portable: bool, again: bool, as_json: bool) -> None:
    """Build llama.cpp for this processor, prove that it decodes, and install it into this environment."""
    with _shown(as_json=as_json) as shown:
        builder = Builder(shown)
        record = None if again or portable else builder.current()
        if record is None:
            proof = model or smallest_writer(_store(root, None))
            record = builder.install(builder.compile(portable=portable), proof, portable=portable)
        else:
            shown.note("llama.cpp is built for this processor already")
        shown.tell("built", **msgspec.to_builtins(record))


@commands.command()
@click.option("--writer", "writers", multiple=True, metavar="NAME", help="[default: models.writer in edge.toml]")
@click.option("--embedder", metavar="NAME", help="[default: models.embedder in edge.toml]")
@click.option("--tune/--no-tune", default=True, help="Measure which format is fastest here.  [default: --tune]")
@_STORE
@_HUB
@_JSON
def setup(
    *, writers: tuple[str, ...], embedder: str | None, tune: bool, root: Path | None, hub: str, as_json: bool
) -> None:
    """Fetch models, build llama.cpp, measure: all that `make run` needs. Instant where it was done before."""
    wanted = config.load(Paths.from_environment().config).models
    with _shown(as_json=as_json) as shown:
        store = _store(root, None)
        prepare(
            store,
            shown,
            Fetch(store, shown, Downloads(hub)),
            writers=writers or (wanted.writer,),
            others=(embedder or wanted.embedder,),
            tune=tune,
        )
        shown.note("everything is there")


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Display]:
    with display(as_json=as_json) as shown:
        try:
            yield shown
        except (ToolError, ModelError, EdgeError) as error:
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

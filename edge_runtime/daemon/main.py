"""The command ``edged``: prepare, seal, and only then import what computes and serves.

Until the seal this imports the standard library alone: a native library starts threads that the seal does not reach.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from edge_runtime import config as configuration
from edge_runtime.daemon import logs, notify, startup
from edge_runtime.errors import ConfigError, EdgeError, ExitCode
from edge_runtime.paths import Paths
from edge_runtime.seal import Access, SealReport, plain_writes, seal
from edge_runtime.turn import Turn


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edged", description="Serve this box's models and documents on a Unix socket, sealed off from the network."
    )
    parser.add_argument(
        "--listen", metavar="127.0.0.1:PORT", help="also listen on this TCP address, with the token in run/token"
    )
    parser.add_argument("--unsealed", action="store_true", help="start even where the kernel cannot seal everything")
    parser.add_argument("--config", metavar="FILE", type=Path, help="instead of $EDGE_CONFIG or edge.toml in EDGE_HOME")
    return parser.parse_args(argv)


def _seal(paths: Paths, config: Path, *, unsealed: bool) -> SealReport:
    # Landlock follows links when a rule is made: what the home links to is named by its target.
    readable = (paths.models.resolve(),)
    config_file = (config.resolve(),) if config.exists() else ()
    access = Access(read=(*readable, *config_file), write=(paths.home.resolve(),))
    report = seal(access, unsealed_ok=unsealed)
    plain_writes()
    return report


def _turn() -> Turn:
    """Made before the seal, which the children could not look past."""
    try:
        return Turn.create()
    except OSError as error:
        logs.warn("turn.missing", reason=f"{error}: tokens and embeddings will slow each other down")
        return Turn.free()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop; the exit status."""
    options = _arguments(argv)
    logs.start()
    paths = Paths.from_environment()
    try:
        config_path = (options.config or paths.config).absolute()
        if (options.config or "EDGE_CONFIG" in os.environ) and not config_path.exists():
            raise ConfigError(f"{config_path} is not there: name a file that is, or leave it out for the defaults")
        config = configuration.load(config_path)
        startup.prepare_home(paths)
        lock = startup.take_lock(paths)
        startup.sweep(paths)
        inherited = notify.inherited_listeners()
        listeners = startup.open_listeners(paths, options.listen, inherited)
        notifier = notify.Notifier.from_environment()
        turn = _turn()
        report = _seal(paths, config_path, unsealed=options.unsealed)
    except EdgeError as error:
        logs.error("refused", reason=error.message)
        return int(error.exit_code)
    if report.missing:
        logs.warn("unsealed", missing=list(report.missing))

    # A sealed process verifies nobody's certificate, and aiohttp would read all of the system's at its import.
    os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull
    from edge_runtime.daemon.beginning import begin  # noqa: PLC0415  (after the seal)

    beginning = begin(config, paths, listeners, notifier, report, turn=turn)
    from edge_runtime.daemon import process  # noqa: PLC0415  (while the children load)

    process.run(beginning)
    if not inherited:
        # Outside the home the seal forbids it; the next start removes what nobody answers on.
        with contextlib.suppress(OSError):
            paths.socket.unlink(missing_ok=True)
    os.close(lock)
    logs.info("stopped")
    return int(ExitCode.OK)

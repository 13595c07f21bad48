"""Everything a fresh environment needs: models fetched while llama.cpp compiles, the build proved, formats measured.

Instant where all of it is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from firmware_tools.errors import SetupError, ToolError
from firmware_tools.fetch import Fetch
from firmware_tools.llama_build import Builder, Record
from firmware_tools.progress import Display
from models.errors import DamagedFileError, ModelError, NotInstalledError
from models.machine import fingerprint
from models.store import Store


def prepare(
    store: Store, display: Display, fetch: Fetch, *, writers: Sequence[str], others: Sequence[str], tune: bool = True
) -> None:
    """Fetch ``writers`` and ``others``, build llama.cpp into this environment, and tune each writer.

    Raises:
        FetchError, BuildError, SetupError, ModelError: something cannot be had; the message says what to do.
    """
    names = [*dict.fromkeys([*others, *writers])]
    display.note("checking what is there")
    builder = Builder(display)
    record = builder.current()
    if record is None:
        build_and_fetch(display, fetch, names, lambda: store.get(writers[0]).files["weights"])
    else:
        for name in names:
            fetch.model(name)
    for name in writers if tune else ():
        tune_writer(store, display, name)


def build_and_fetch(display: Display, fetch: Fetch, names: Sequence[str], model: Callable[[], Path]) -> Record:
    """Compile while a thread fetches ``names``; then decode with ``model()``. The first failure ends both."""
    failures: list[ToolError | ModelError] = []

    def fetch_all() -> None:
        try:
            for name in names:
                fetch.model(name)
        except (ToolError, ModelError) as error:
            failures.append(error)

    def still_wanted() -> None:
        if failures:
            raise failures[0]

    # A daemon thread: where the compiler fails, nobody waits for a download that can be resumed.
    fetching = threading.Thread(target=fetch_all, name="fetch", daemon=True)
    fetching.start()
    builder = Builder(display, wanted=still_wanted)
    compiled = builder.compile()
    fetching.join()
    still_wanted()
    return builder.install(compiled, model())


def tune_writer(store: Store, display: Display, name: str) -> None:
    """Choose the fastest form of ``name`` on this machine, unless that was done; a failure leaves it as it was fetched.

    Raises:
        SetupError: the measuring process was interrupted.
    """
    tuned = store.tuned(name)
    if tuned is not None and tuned.machine == fingerprint():
        return
    command = [sys.executable, "-P", "-m", "edge_runtime.engine.tuning", name, "--store", str(store.root), "--json"]
    errors: list[str] = []
    with (
        subprocess.Popen(
            command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(lambda: errors.extend((child.stderr or sys.stdin).read().splitlines()))
        for line in child.stdout or ():
            _show(display, name, line)
    if child.returncode != 0:
        reason = errors[-1] if errors else f"the measuring process ended with {child.returncode}"
        display.note(
            f"{name} was not tuned ({reason}); it runs as it was fetched. `edge model tune {name}` tries again"
        )


def _show(display: Display, name: str, line: str) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        return
    match event:
        case {"event": "progress", "done": int(done), "total": int(total)}:
            display.step(f"tuning {name}: {event.get('task', event.get('file', ''))}", done, total, "steps")
        case {"event": "note", "text": str(text)}:
            display.note(text)
        case _:
            pass


def smallest_writer(store: Store) -> Path:
    """The weights of the smallest installed writer.

    Raises:
        SetupError: no writer is installed.
    """
    sizes: list[tuple[int, Path]] = []
    for name in store.names():
        try:
            installed = store.get(name)
        except (NotInstalledError, DamagedFileError):
            continue
        if installed.kind == "writer":
            sizes.append((installed.held["weights"].size, installed.files["weights"]))
    if not sizes:
        raise SetupError(
            "a build is proved by decoding, and no writer is installed: run `edge-firmware fetch smollm2-135m-instruct`"
        )
    return min(sizes)[1]

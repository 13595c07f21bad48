"""Run by test_fetch_killed: fetches in a forked child that kills itself at its n-th change of the disk, for every n.

After each death the store must work, and a second fetch must end with everything in place. Prints how many deaths.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from firmware_tools.fetch import Fetch
from firmware_tools.progress import Lines
from models.errors import NotInstalledError
from models.store import Store
from tests.models.entries import entry_text, from_path, own

CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.rmtree"}
CONTENTS = {"weights": b"w" * 3_000_000, "tokenizer": b"t" * 1000}


class Quiet(Lines):
    def note(self, text: str) -> None:
        pass


def prepare(folder: Path) -> Store:
    store = Store(folder / "store", 10**9)
    files = []
    for role, content in CONTENTS.items():
        (folder / role).write_bytes(content)
        known = content if role == "weights" else None
        files.append((role, known, from_path(folder / role)))
    own(store.root, "tiny", entry_text("tiny", files, "embedder"))
    return store


def fetch_and_die(store: Store, deadly: int) -> None:
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in CHANGES and str(store.root) in str(arguments):
            seen += 1
            if seen == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    Fetch(store, Quiet()).model("tiny")
    os._exit(0)


def check(store: Store) -> None:
    """What is there now is whole, or is not there."""
    for name in store.names():
        assert {finding.problem for finding in store.verify(name)} == {None}
    try:
        store.get("tiny")
    except NotInstalledError:
        assert store.names() == ()
    installed = Fetch(store, Quiet()).model("tiny")
    assert {role: path.read_bytes() for role, path in installed.files.items()} == CONTENTS
    assert {finding.problem for finding in store.verify("tiny")} == {None}
    store.remove("tiny")
    assert store.used_bytes() == 0, list(store.root.rglob("*"))
    assert not list((store.root / "partial").iterdir())
    assert not list((store.root / "installed").glob("*.json"))


def main() -> None:
    root = Path(sys.argv[1])
    deaths = 0
    while True:
        folder = root / str(deaths)
        folder.mkdir()
        store = prepare(folder)
        child = os.fork()
        if child == 0:
            fetch_and_die(store, deaths + 1)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        check(store)
        deaths += 1
    print(deaths)


if __name__ == "__main__":
    main()

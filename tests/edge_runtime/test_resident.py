"""How large a process says it is, beside what the kernel says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edge_runtime.resident import proportional_bytes


def test_the_kernel_tells_where_it_may_and_nothing_is_known_where_not(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    assert proportional_bytes(rollup) is None
    rollup.write_text("00-ff ---p 0 00:00 0 [rollup]\nRss:   900 kB\nPss:   700 kB\nPss_Anon: 1 kB\n", "ascii")
    assert proportional_bytes(rollup) == 700 * 1024
    exact = proportional_bytes()
    assert exact is not None
    assert exact > 2**20


# In a process of its own: what others took at most stays this process's peak. So does the peak of what starts another
# program (getrusage(2)), which is why a shell stands between. The first block lifts this process to its own peak.
_GROWTH = """
import sys
from pathlib import Path
import numpy as np
from edge_runtime.resident import Resident

first = np.ones(64 * 2**20, np.uint8)
size = Resident(Path(sys.argv[1]))
size.settle(mapped=0)
before = size.bytes()
block = np.ones(64 * 2**20, np.uint8)
held = size.bytes() - before
del block
print(held, size.bytes() - before)
"""


def test_without_the_kernel_what_is_taken_and_given_back_is_followed(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _GROWTH, str(tmp_path / "smaps_rollup")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert 50 * 2**20 < held < 70 * 2**20
    assert abs(left) < 8 * 2**20

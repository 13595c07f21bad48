"""How large a process says it is, beside what the kernel says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_runtime.resident import Resident, proportional_bytes


def test_the_kernel_tells_where_it_may_and_nothing_is_known_where_not(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    assert proportional_bytes(rollup) is None
    rollup.write_text("00-ff ---p 0 00:00 0 [rollup]\nRss:   900 kB\nPss:   700 kB\nPss_Anon: 1 kB\n", "ascii")
    assert proportional_bytes(rollup) == 700 * 1024
    exact = proportional_bytes()
    assert exact is not None
    assert exact > 2**20


def test_without_the_kernel_what_is_taken_and_given_back_is_followed(tmp_path: Path) -> None:
    size = Resident(tmp_path / "smaps_rollup")
    size.settle(mapped=0)
    before = size.bytes()
    block = np.ones(64 * 2**20, np.uint8)
    assert 50 * 2**20 < size.bytes() - before < 70 * 2**20
    del block
    assert abs(size.bytes() - before) < 8 * 2**20

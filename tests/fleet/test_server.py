"""The fleet command says what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FLEET = str(Path(sys.executable).parent / "edge-fleet")


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--help"], 0), ([], 1), (["--fly"], 2)])
def test_it_says_that_there_is_no_fleet_server_yet(arguments: list[str], code: int) -> None:
    done = subprocess.run([FLEET, *arguments], capture_output=True, text=True)

    assert done.returncode == code
    if arguments == ["--help"]:
        assert "no fleet server" in done.stdout
    if not arguments:
        assert "no fleet server" in done.stderr

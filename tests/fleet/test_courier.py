"""The courier's check of its own boundary, tried as another user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COURIER = str(Path(sys.executable).parent / "edge-courier")
# As another user: the interpreter's own files may lie where that one cannot look, so all is imported first.
_AS_ANOTHER = """
import os, sys
import encodings.idna, json
from fleet.courier.main import main, breaches
from edge_runtime.paths import Paths
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(json.dumps(list(breaches(Paths.from_environment()))))
"""


def _home(tmp_path: Path, mode: int) -> Path:
    home = tmp_path / "home"
    for folder in (home, home / "models", home / "snapshots"):
        folder.mkdir(mode=mode)
        folder.chmod(mode)
    (home / "index.db").write_bytes(b"private")
    (home / "index.db").chmod(mode & 0o666)
    return home


def _check(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_HOME": str(home)}
    return subprocess.run([COURIER, "check", *arguments], capture_output=True, text=True, env=environment)


def test_the_owner_of_the_home_is_no_courier(tmp_path: Path) -> None:
    home = _home(tmp_path, 0o700)

    done = _check(home, "--json")

    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["kept_out"], told["uid"]) == (False, os.getuid())
    assert "run it as the user edge-courier" in told["problems"][0]
    assert "run it as the user edge-courier" in _check(home).stderr


def test_a_home_that_is_not_there_cannot_be_judged(tmp_path: Path) -> None:
    done = _check(tmp_path / "none")

    assert done.returncode == 1
    assert "set EDGE_HOME" in done.stderr


@pytest.mark.parametrize(("mode", "kept_out"), [(0o700, True), (0o755, False)])
def test_another_user_is_kept_out_of_a_private_home_and_says_so_where_it_is_not(
    tmp_path: Path, mode: int, *, kept_out: bool
) -> None:
    """Only root can become somebody else; another user is somebody else to root's home already."""
    home = _home(tmp_path, mode)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder not in (Path("/"), Path("/tmp")):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = _AS_ANOTHER
    if os.getuid() != 0:
        script = script[: script.index("os.setgroups")] + script[script.index("print(") :]
        home = Path("/root") if kept_out else Path("/")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "EDGE_HOME": str(home)}
    )

    assert done.returncode == 0, done.stderr
    problems = json.loads(done.stdout)
    if os.getuid() == 0:
        assert (problems == []) == kept_out
        assert kept_out or any("can read" in problem and "index.db" in problem for problem in problems)


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--help"], 0), (["run"], 1), (["fly"], 2)])
def test_the_command_line_is_honest_about_what_there_is(arguments: list[str], code: int) -> None:
    assert subprocess.run([COURIER, *arguments], capture_output=True).returncode == code

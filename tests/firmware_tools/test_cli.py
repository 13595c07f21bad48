"""The command line of the tools, as processes, and what they show."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from firmware_tools import progress
from firmware_tools.setup import smallest_writer, tune_writer
from models.errors import NotInstalledError
from models.machine import fingerprint
from models.store import Store
from tests.firmware_tools.conftest import Told
from tests.models.entries import entry_text, from_path, own

FIRMWARE = str(Path(sys.executable).parent / "edge-firmware")


def _run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"EDGE_HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run([FIRMWARE, *arguments], capture_output=True, text=True, env=environment)


def _own(home: Path, content: bytes = b"weights") -> None:
    (home / "w.gguf").write_bytes(content)
    own(home / "models", "mine", entry_text("mine", [("weights", None, from_path(home / "w.gguf"))]))


def test_an_owners_own_file_is_fetched_into_the_home(tmp_path: Path) -> None:
    _own(tmp_path)

    done = _run("fetch", "mine", home=tmp_path)

    assert (done.returncode, done.stdout) == (0, "")
    assert "mine is installed" in done.stderr
    assert Store(tmp_path / "models", 10**6).get("mine").files["weights"].read_bytes() == b"weights"


def test_json_lines_tell_a_program_how_far_it_is_and_what_failed(tmp_path: Path) -> None:
    _own(tmp_path)

    done = _run("fetch", "mine", "none", "--json", home=tmp_path)

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [event["event"] for event in events if event["event"] != "note"] == ["progress", "installed", "error"]
    assert events[-1]["message"].startswith("the catalogue has no model called none")
    assert "edge-firmware: the catalogue has no model called none" in done.stderr


def test_the_quota_of_the_settings_is_obeyed(tmp_path: Path) -> None:
    _own(tmp_path, b"x" * 2000)
    (tmp_path / "edge.toml").write_text("[models]\nquota_bytes = 1000\n")

    done = _run("fetch", "mine", home=tmp_path)

    assert done.returncode == 1
    assert "models.quota_bytes" in done.stderr
    assert _run("fetch", "mine", "--quota", "5000", home=tmp_path).returncode == 0


def test_wrong_usage_and_wrong_settings_are_told_apart_from_failures(tmp_path: Path) -> None:
    assert _run("fetch", home=tmp_path).returncode == 2
    assert _run("fly", home=tmp_path).returncode == 2
    assert _run("--version", home=tmp_path).stdout.startswith("edge-firmware")
    (tmp_path / "edge.toml").write_text("[model]\n")
    wrong = _run("fetch", "mine", home=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean models" in wrong.stderr


def test_a_build_without_any_writer_to_prove_it_says_what_to_fetch(tmp_path: Path) -> None:
    done = _run("build-llama", "--again", home=tmp_path)

    assert done.returncode == 1
    assert "edge-firmware fetch smollm2-135m-instruct" in done.stderr


def test_the_smallest_whole_writer_proves_a_build(tmp_path: Path) -> None:
    store = Store(tmp_path / "models", 10**6)
    for size, name in ((30, "large"), (10, "small"), (1, "broken")):
        (tmp_path / name).write_bytes(name[:1].encode() * size)
        own(store.root, name, entry_text(name, [("weights", None, from_path(tmp_path / name))]))
        assert _run("fetch", name, home=tmp_path).returncode == 0
    store.get("broken").files["weights"].unlink()

    assert smallest_writer(store).read_bytes() == b"s" * 10


def test_a_writer_that_was_tuned_on_this_machine_is_not_tuned_again(tmp_path: Path, told: Told) -> None:
    _own(tmp_path)
    _run("fetch", "mine", home=tmp_path)
    store = Store(tmp_path / "models", 10**6)
    store.keep_source("mine", figures={}, machine=fingerprint())

    tune_writer(store, told, "mine")

    assert not told.notes
    assert not told.steps


def test_a_writer_that_cannot_be_tuned_runs_as_it_was_fetched_and_that_is_said(tmp_path: Path, told: Told) -> None:
    _own(tmp_path, b"no model at all")
    _run("fetch", "mine", home=tmp_path)
    store = Store(tmp_path / "models", 10**6)

    tune_writer(store, told, "mine")

    assert "was not tuned" in told.notes[-1]
    assert store.writer_path("mine").read_bytes() == b"no model at all"


def test_tuning_what_is_not_installed_is_said_too(tmp_path: Path, told: Told) -> None:
    with pytest.raises(NotInstalledError):
        Store(tmp_path, 1).get("mine")
    tune_writer(Store(tmp_path, 1), told, "mine")

    assert "was not tuned" in told.notes[-1]


def test_lines_show_each_tenth_once_and_the_end_always(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.Lines()
    for done in range(0, 1001, 10):
        lines.step("file", done, 1000)

    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "file:   0 % 0.0/0.0 MB"
    assert shown[-1] == "file: 100 % 0.0/0.0 MB"
    assert len(shown) == len(set(shown)) <= 11


def test_bars_are_drawn_and_notes_are_not_read_as_markup() -> None:
    screen = io.StringIO()
    bars = progress.Bars(Console(file=screen, force_terminal=True, width=100, color_system=None))
    with bars.progress:
        bars.note("a [bold]name[/bold]")
        bars.step("file", 500_000, 1_000_000)
        bars.step("steps", 3, 10, "steps")

    assert "[bold]name[/bold]" in screen.getvalue()
    assert "0.5/1.0 MB" in screen.getvalue()
    assert "3/10" in screen.getvalue()

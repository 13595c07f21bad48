"""What a configuration file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.config import Config, load
from edge_runtime.errors import ConfigError


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "edge.toml"
    path.write_text(text, "utf-8")
    return load(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("slots = 0", r"engine\.slots is 0; give a number from 1 to 128"),
        ("slots = 129", r"engine\.slots is 129; give a number from 1 to 128"),
        ("slots = -1", r"engine\.slots must not be negative"),
        ("slots = true", r"engine\.slots must be of type int, not bool"),
        ("context = 0", r"engine\.context is 0; give a number from 1 to 16777215"),
    ],
)
def test_a_number_that_no_engine_can_have_is_refused_with_its_range(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read(tmp_path, f"[engine]\n{line}\n")


def test_the_ends_of_a_range_are_inside_it(tmp_path: Path) -> None:
    engine = read(tmp_path, "[engine]\nslots = 128\ncontext = 1\nsilence_seconds = 0\n").engine
    assert (engine.slots, engine.context, engine.silence_seconds) == (128, 1, 0.0)
    assert read(tmp_path, "[engine]\nslots = 1\n").engine.slots == 1

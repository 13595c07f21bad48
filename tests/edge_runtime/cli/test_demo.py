"""The demo's own settings: those of the box, with another writer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edge_runtime import config
from edge_runtime.cli.demo import _options
from edge_runtime.paths import Paths


def test_another_writer_is_the_only_setting_that_the_demo_changes(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.config.write_text(
        '[engine]\npinned = ["a", "b\\"c"]\nsilence_seconds = 0.0\nitl_target_ms = {batch = 400}\n', "utf-8"
    )
    before = config.load(paths.config)
    option, file = _options(paths, "another")
    assert option == "--config"
    assert config.load(Path(file)) == dataclasses.replace(
        before, models=dataclasses.replace(before.models, writer="another")
    )
    assert _options(paths, before.models.writer) == []

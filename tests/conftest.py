"""Fixtures that every package's tests share: where the real models are."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from edge_runtime.paths import Paths
from models.store import Store

SMALL_WRITER = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2-int8"
NO_QUOTA = 2**60


def pytest_configure() -> None:
    """A job in the background of a shell is started with ctrl-c ignored, and would hand that on to every process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_store() -> Store:
    """The store that ``make setup`` filled; its models are real."""
    return Store(Paths.from_environment().models, quota_bytes=NO_QUOTA)


@pytest.fixture(scope="session")
def small_writer(shared_store: Store) -> Path:
    return shared_store.writer_path(SMALL_WRITER)


@pytest.fixture(scope="session")
def embedder_files(shared_store: Store) -> tuple[Path, Path]:
    """ONNX weights and tokenizer."""
    files = shared_store.get(EMBEDDER).files
    return files["weights"], files["tokenizer"]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture
def edge_home(tmp_path: Path, shared_store: Store) -> Path:
    """A fresh EDGE_HOME that has the models, and nothing else."""
    home = tmp_path / "home"
    shutil.copytree(shared_store.root, home / "models", copy_function=_link)
    (home / "edge.toml").write_text(f'[models]\nwriter = "{SMALL_WRITER}"\nembedder = "{EMBEDDER}"\n', "utf-8")
    return home

"""Sources, a store and a display for the tests of the tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.store import Store
from tests.firmware_tools.sources import Hub, hub


class Told:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int, int | None]] = []
        self.events: list[tuple[str, dict[str, object]]] = []

    def step(self, task: str, done: int, total: int | None, unit: str = "bytes") -> None:
        self.steps.append((task, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tell(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def local_hub() -> Iterator[Hub]:
    with hub() as running:
        yield running


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", 10**9)

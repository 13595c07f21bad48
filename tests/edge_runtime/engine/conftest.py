"""Children with the small writer, and the same file in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.engine.generator import sequences
from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.engine.messages import Load, Ready
from tests.edge_runtime.engine.children import Child
from tests.edge_runtime.engine.generators import BATCH, SLOTS, Driver


@pytest.fixture(scope="module")
def writer(small_writer: Path) -> Iterator[Llama]:
    """The same file in this process, for bare loops."""
    model = Llama(small_writer, Shape(context=512, threads=1, outputs=64))
    yield model
    model.close()


@pytest.fixture(scope="module")
def wide(small_writer: Path) -> Iterator[Llama]:
    """A context as the engine makes it, with 8 sequences."""
    model = Llama(small_writer, Shape(context=512, threads=1, batch=64, sequences=8))
    yield model
    model.close()


def _batched(path: Path, context: int) -> Llama:
    count = sequences(SLOTS)
    return Llama(path, Shape(context=context, threads=1, batch=BATCH, sequences=count, outputs=count))


@pytest.fixture(scope="module")
def spacious(small_writer: Path) -> Iterator[Llama]:
    """A context for generators with room for all that a test asks at once."""
    model = _batched(small_writer, 2048)
    yield model
    model.close()


@pytest.fixture(scope="module")
def cramped(small_writer: Path) -> Iterator[Llama]:
    """One in which two or three requests fill all cells."""
    model = _batched(small_writer, 256)
    yield model
    model.close()


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Starts generators on a model, one after the other."""
    made: list[Driver] = []

    def make(model: Llama, **setting: Any) -> Driver:
        made.append(Driver(model, **setting))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


@pytest.fixture
def start(small_writer: Path) -> Iterator[Callable[..., Child]]:
    """Starts children that may read the model's directory, and ends those that are left."""
    children: list[Child] = []

    def make(*read: Path) -> Child:
        children.append(Child(small_writer.parent, *read))
        return children[-1]

    yield make
    for child in children:
        child.process.kill()
        child.process.wait()
        child.end.close()


@pytest.fixture(scope="module")
def child(small_writer: Path) -> Iterator[Child]:
    """One child with the small writer and 512 cells, which the tests of answers share."""
    made = Child(small_writer.parent)
    made.send(Load(path=str(small_writer), name="small", context=512, threads=1, batch=64))
    assert isinstance(made.receive(), Ready)
    yield made
    assert made.close() == 0

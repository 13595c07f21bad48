"""How much memory a writer will take, told from its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import Config, EngineConfig
from edge_runtime.daemon.footprint import Facts, cell_bytes, footprint
from edge_runtime.daemon.stock import Stock
from edge_runtime.engine import gguf
from edge_runtime.errors import ModelFileError, ModelNotFoundError
from models.store import Store
from tests.conftest import EMBEDDER, SMALL_WRITER

FACTS: Facts = {
    "general.architecture": "qwen2",
    "qwen2.block_count": 24,
    "qwen2.context_length": 32768,
    "qwen2.embedding_length": 896,
    "qwen2.attention.head_count": 14,
    "qwen2.attention.head_count_kv": 2,
    gguf.WORDS: 151936,
}


def test_a_cell_has_a_key_and_a_value_of_each_layer_in_two_bytes() -> None:
    assert cell_bytes(FACTS) == 24 * 2 * (64 + 64) * 2


def test_heads_that_are_not_as_wide_as_the_rest_suggests_count_as_the_file_says() -> None:
    wide = {**FACTS, "qwen2.attention.key_length": 128, "qwen2.attention.value_length": 256}
    assert cell_bytes(wide) == 24 * 2 * (128 + 256) * 2


def test_layers_with_their_own_number_of_heads_count_as_if_all_had_the_most() -> None:
    assert cell_bytes({**FACTS, "qwen2.attention.head_count_kv": None}) == 24 * 14 * (64 + 64) * 2


@pytest.mark.parametrize("key", ["qwen2.block_count", "qwen2.embedding_length", "qwen2.attention.head_count"])
def test_a_file_that_does_not_tell_has_no_footprint(key: str) -> None:
    assert footprint({**FACTS, key: None}, weights=1, context=1) is None
    assert footprint({}, weights=1, context=1) is None


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_more_context_takes_more_until_the_model_has_no_more(one: int, other: int) -> None:
    first, second = (footprint(FACTS, weights=0, context=context) for context in (one, other))
    assert first is not None
    assert second is not None
    assert second - first == (min(other, 32768) - min(one, 32768)) * 12288


def test_the_outline_of_a_file_says_what_the_whole_head_says(small_writer: Path) -> None:
    outline, whole = dict(gguf.outline(small_writer)), gguf.read(small_writer)
    assert outline.pop(gguf.WORDS) == whole.tensors["token_embd.weight"].shape[1]
    assert outline.items() <= whole.facts.items()


def test_a_file_that_ends_before_its_vocabulary_is_damaged(small_writer: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(small_writer.read_bytes()[:1024])
    with pytest.raises(ModelFileError, match="it ends inside a value"):
        gguf.outline(tmp_path / "cut.gguf")


def test_the_stock_knows_writers_by_size_and_nothing_else(shared_store: Store) -> None:
    stock = Stock(Config(engine=EngineConfig(context=512)), shared_store.root)
    assert SMALL_WRITER in stock.names()
    assert EMBEDDER not in stock.names()
    assert stock.names("embedder") == [EMBEDDER]
    size = shared_store.writer_path(SMALL_WRITER).stat().st_size
    assert size + 512 * 23040 < stock.size(SMALL_WRITER) < 2**28
    for name in (EMBEDDER, "qwen3-4b", "../x", "a\0b"):
        with pytest.raises(ModelNotFoundError, match=rf"is no writer that is here; this box has .*{SMALL_WRITER}"):
            stock.size(name)

"""How a model reads, as its catalogue entry says: pooling, window and prefixes, in a real child with the real model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edge_runtime.embedding.onnx import Encoder, Reading
from edge_runtime.engine.messages import Embed, Failed, Ready, Vectors
from tests.edge_runtime.embedding.conftest import Peer, started

SENTENCE = "Close the suction valve before the pump is opened."
LONG = " ".join(f"Valve {number} is closed when alarm E{number % 30} rings." for number in range(200))
QUERY = "Represent this sentence for searching relevant passages: "


def rows(peer: Peer, text: str, kind: str = "passage") -> np.ndarray:
    return np.frombuffer(reply(peer, text, kind).data, "<f4").reshape(-1, 384)


def reply(peer: Peer, text: str, kind: str = "passage") -> Vectors:
    peer.send(Embed(id="x", texts=[text], pool=False, kind=kind))  # type: ignore[arg-type]
    found = peer.receive()
    assert isinstance(found, Vectors), found
    return found


@pytest.fixture(scope="module")
def reader(embedder_files: tuple[Path, Path]) -> Iterator[Peer]:
    """A child that pools by the first token, reads 128 tokens at once and puts a prefix before a query."""
    with started(embedder_files) as peer:
        ready = peer.load(embedder_files, pooling="cls", window=128, query=QUERY)
        assert isinstance(ready, Ready), ready
        assert ready.context == 128
        yield peer


def test_cls_pooling_gives_the_first_token_s_hidden_state(
    reader: Peer, embedder: Peer, embedder_files: tuple[Path, Path]
) -> None:
    ids = np.array([Tokenizer.from_file(str(embedder_files[1])).encode(SENTENCE).ids], np.int64)
    ids = ids[:, : np.count_nonzero(ids)]
    session = onnxruntime.InferenceSession(str(embedder_files[0]), providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    named = {item.name for item in session.get_inputs()}
    hidden = session.run(None, {name: value for name, value in feed.items() if name in named})[0]
    first = hidden[0, 0] / np.linalg.norm(hidden[0, 0])

    (cls,) = rows(reader, SENTENCE)
    (mean,) = rows(embedder, SENTENCE)

    assert cls @ first > 0.9999
    assert mean @ first < 0.99


def test_a_smaller_window_makes_more_of_them_and_they_cover_every_character(reader: Peer, embedder: Peer) -> None:
    small, large = reply(reader, LONG), reply(embedder, LONG)
    assert small.counts[0] > 1.5 * large.counts[0]
    assert small.tokens == large.tokens
    assert (small.spans[0][0], small.spans[-1][1]) == (0, len(LONG))
    assert all(one[1] > following[0] for one, following in pairwise(small.spans))


def test_a_query_is_read_with_its_prefix_and_a_passage_without(reader: Peer) -> None:
    (query,) = rows(reader, SENTENCE, "query")
    (passage,) = rows(reader, SENTENCE)
    (spelled,) = rows(reader, QUERY + SENTENCE)
    assert query @ passage < 0.99
    assert query @ spelled > 0.9999
    assert reply(reader, SENTENCE, "query").spans == [(0, len(SENTENCE))]


def test_every_window_of_a_long_query_has_the_prefix_and_the_windows_cover_all_of_it(reader: Peer) -> None:
    with_prefix, without = reply(reader, LONG, "query"), reply(reader, LONG)
    assert with_prefix.counts[0] > without.counts[0]
    assert with_prefix.tokens == without.tokens
    assert (with_prefix.spans[0][0], with_prefix.spans[-1][1]) == (0, len(LONG))
    start, end = with_prefix.spans[-1]
    last = np.frombuffer(with_prefix.data, "<f4").reshape(-1, 384)[-1]
    (alone,) = rows(reader, LONG[start:end], "query")
    assert last @ alone > 0.999


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"window": 600}, "prompt.window"),
        ({"window": 17}, "prompt.window"),
        ({"window": 64, "passage": QUERY * 9}, "prompt.passage"),
        ({"window": 64, "query": QUERY * 9}, "prompt.query"),
    ],
)
def test_rules_that_the_model_cannot_follow_are_refused_by_their_name(
    child: Peer, embedder_files: tuple[Path, Path], rules: dict[str, object], field: str
) -> None:
    refused = child.load(embedder_files, **rules)
    assert isinstance(refused, Failed)
    assert (refused.id, refused.code) == ("load", "model_file")
    assert field in refused.message
    assert isinstance(child.load(embedder_files), Ready)


@pytest.fixture(scope="module")
def encoder(embedder_files: tuple[Path, Path]) -> Encoder:
    return Encoder(*embedder_files, threads=1, reading=Reading(window=32, query="search_query:", passage="un"))


@given(text=st.text(max_size=300), kind=st.sampled_from(["query", "passage"]))
def test_whatever_the_text_its_windows_fit_and_cover_it_behind_the_prefix(
    encoder: Encoder, text: str, kind: str
) -> None:
    pieces = encoder.read(text, kind)  # type: ignore[arg-type]
    assert all(len(piece.ids) <= 32 for piece in pieces)
    assert (pieces[0].window.start, pieces[-1].window.end) == (0, len(text))
    for one, following in pairwise(pieces):
        assert one.window.start <= following.window.start <= one.window.end <= following.window.end

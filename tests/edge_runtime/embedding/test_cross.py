"""The reranker: a real ONNX cross-encoder in a real child, within its time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.embedding.cross import QUERY_TOKENS, CrossEncoder, Ordering
from edge_runtime.engine.messages import Cancel, Embed, Failed, Ready, Rerank, Reranked
from edge_runtime.errors import ModelFileError
from tests.edge_runtime.embedding import cross_files
from tests.edge_runtime.embedding.conftest import Peer, started

WINDOW = 64
AGES = 60_000.0  # milliseconds
TEXTS = ["The kettle is descaled in spring.", "The gland bolts are tightened.", "Bolts of the gland: 35 Nm."]
QUERY = "gland bolts torque"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, embedder_files: tuple[Path, Path]) -> tuple[Path, Path]:
    """Weights of our own, and the tokenizer of a real model."""
    return cross_files.write(tmp_path_factory.mktemp("cross") / "cross.onnx"), embedder_files[1]


@pytest.fixture(scope="module")
def encoder(files: tuple[Path, Path]) -> CrossEncoder:
    return CrossEncoder(*files, threads=1, window=WINDOW)


@pytest.fixture
def reranker(files: tuple[Path, Path]) -> Iterator[Peer]:
    with started(files) as peer:
        ready = peer.load(files, pooling="score", window=WINDOW)
        assert isinstance(ready, Ready), ready
        assert (ready.context, ready.width) == (WINDOW, 1)
        yield peer


def logistic(matches: int) -> float:
    return 1 / (1 + math.exp(-matches))


def test_probabilities_come_back_in_the_order_of_the_texts(reranker: Peer) -> None:
    reranker.send(Rerank(id="r", query=QUERY, texts=TEXTS, milliseconds=AGES))
    reply = reranker.receive()
    assert isinstance(reply, Reranked)
    assert reply.probabilities == pytest.approx([logistic(0), logistic(2), logistic(2)])


def test_many_texts_of_all_lengths_are_each_scored_as_if_alone(reranker: Peer) -> None:
    texts = [" ".join(["bolts"] * (at % 7) + ["valve"] * (at % 40)) for at in range(60)]
    reranker.send(Rerank(id="r", query="bolts", texts=texts, milliseconds=AGES))
    reply = reranker.receive()
    assert isinstance(reply, Reranked)
    assert reply.probabilities == pytest.approx([logistic(at % 7) for at in range(60)])


def test_without_any_time_nothing_is_scored_and_the_next_request_is(reranker: Peer) -> None:
    reranker.send(Rerank(id="none", query=QUERY, texts=TEXTS, milliseconds=0))
    reranker.send(Rerank(id="empty", query=QUERY, texts=[], milliseconds=AGES))
    reranker.send(Rerank(id="all", query=QUERY, texts=TEXTS, milliseconds=AGES))
    replies = [reranker.receive() for _ in range(3)]
    assert {reply.id: len(reply.probabilities) for reply in replies if isinstance(reply, Reranked)} == {
        "none": 0,
        "empty": 0,
        "all": 3,
    }


def test_what_was_scored_when_the_time_is_over_is_kept(encoder: CrossEncoder) -> None:
    texts = [f"bolts number {at}" for at in range(40)]
    ordering = Ordering.of(Rerank(id="r", query="bolts", texts=texts, milliseconds=AGES), encoder)
    assert ordering.advance(encoder)
    ordering.ends = 0.0
    assert not ordering.advance(encoder)
    kept = ordering.reply().probabilities
    assert 0 < len(kept) < 40
    assert kept == pytest.approx([logistic(1)] * len(kept))


def test_a_batch_that_would_take_too_long_is_not_begun(encoder: CrossEncoder) -> None:
    request = Rerank(id="r", query="bolts", texts=["bolts"] * 3, milliseconds=1000.0)
    ordering = Ordering.of(request, encoder, token_seconds=1.0)
    assert not ordering.advance(encoder)
    assert ordering.reply().probabilities == []


def test_a_cancelled_request_is_answered_so_and_another_goes_on(reranker: Peer) -> None:
    reranker.send(
        Rerank(id="a", query=QUERY, texts=TEXTS * 200, milliseconds=AGES),
        Cancel(id="a"),
        Rerank(id="b", query=QUERY, texts=TEXTS, milliseconds=AGES),
    )
    replies = {reply.id: reply for reply in (reranker.receive(), reranker.receive())}
    assert isinstance(replies["a"], Failed)
    assert replies["a"].code == "cancelled"
    assert isinstance(replies["b"], Reranked)


def test_a_reranker_embeds_nothing_and_an_embedder_reranks_nothing(
    reranker: Peer, child: Peer, embedder_files: tuple[Path, Path]
) -> None:
    reranker.send(Embed(id="e", texts=["x"]))
    refused = reranker.receive()
    assert isinstance(refused, Failed)
    assert isinstance(child.load(embedder_files), Ready)
    child.send(Rerank(id="r", query="x", texts=["x"], milliseconds=AGES))
    refused = child.receive()
    assert isinstance(refused, Failed)
    assert "models.reranker" in refused.message


def test_a_model_with_two_outputs_gives_the_probability_of_yes(tmp_path: Path, files: tuple[Path, Path]) -> None:
    weights = cross_files.write(tmp_path / "two.onnx", outputs=2)
    encoder = CrossEncoder(weights, files[1], threads=1, window=WINDOW)
    scores = encoder.score([encoder.read(QUERY, text) for text in TEXTS])
    assert scores == pytest.approx([logistic(0), logistic(2), logistic(2)])


@pytest.mark.parametrize("window", [8, 31])
def test_a_window_with_no_room_for_a_pair_is_refused(files: tuple[Path, Path], window: int) -> None:
    with pytest.raises(ModelFileError, match=r"prompt\.window"):
        CrossEncoder(*files, threads=1, window=window)


def test_a_sentence_encoder_is_no_reranker(child: Peer, embedder_files: tuple[Path, Path]) -> None:
    refused = child.load(embedder_files, pooling="score")
    assert isinstance(refused, Failed)
    assert (refused.id, refused.code) == ("load", "model_file")
    assert "not a cross-encoder" in refused.message


@given(query=st.text(max_size=400), text=st.text(max_size=2000))
def test_whatever_the_texts_a_pair_fits_the_window_and_both_are_in_it(
    encoder: CrossEncoder, query: str, text: str
) -> None:
    pair = encoder.read(query, text)
    assert len(pair.ids) == len(pair.kinds) <= WINDOW
    (probability,) = encoder.score([pair])
    assert 0 <= probability <= 1


def test_a_long_query_leaves_room_for_the_passage(encoder: CrossEncoder) -> None:
    pair = encoder.read("bolts " * 4 * QUERY_TOKENS, "gland " * 500)
    assert len(pair.ids) == WINDOW
    assert sum(pair.kinds) > WINDOW // 3

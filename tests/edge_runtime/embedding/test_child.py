"""The embedder child as a real process, with the real model."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.embedding.child import BATCH_TOKENS, batches
from edge_runtime.engine.messages import Cancel, Embed, Failed, Probe, Probed, Ready, Stop, Submit, Vectors
from edge_runtime.turn import Turn
from tests.edge_runtime.embedding.conftest import Peer, started

LONG = " ".join(f"Valve {number} is closed when alarm E{number % 30} rings." for number in range(500))


def rows(reply: Vectors) -> np.ndarray:
    return np.frombuffer(reply.data, "<f4").reshape(-1, reply.width)


def embedded(peer: Peer, texts: list[str], *, pool: bool = True) -> Vectors:
    peer.send(Embed(id="x", texts=texts, pool=pool))
    reply = peer.receive()
    assert isinstance(reply, Vectors), reply
    return reply


def test_similar_sentences_get_closer_unit_vectors_than_unrelated_ones(embedder: Peer) -> None:
    found = rows(embedded(embedder, ["The pump is leaking.", "Water drips from the pump.", "She plays the violin."]))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2] + 0.2


def test_a_vector_depends_on_its_text_alone_and_not_on_its_batch(embedder: Peer) -> None:
    texts = ["Close the valve.", "It rains.", LONG[:900], "Pump 3 stands still since Monday morning."]
    together = rows(embedded(embedder, texts))
    for text, row in zip(texts, together, strict=True):
        assert rows(embedded(embedder, [text]))[0] @ row > 0.999


def test_a_long_text_is_read_whole_in_overlapping_windows(embedder: Peer) -> None:
    reply = embedded(embedder, [LONG, "short"], pool=False)
    assert reply.counts[1] == 1
    assert len(reply.spans) == sum(reply.counts) == len(rows(reply))
    spans = reply.spans[: reply.counts[0]]
    assert (spans[0][0], spans[-1][1]) == (0, len(LONG))
    assert all(one[1] > following[0] for one, following in pairwise(spans))
    assert reply.tokens > 4000


def test_the_last_words_of_a_long_text_move_its_pooled_vector(embedder: Peer) -> None:
    found = rows(embedded(embedder, [LONG, f"{LONG} {'The violinist plays a sad song. ' * 60}"]))
    assert found.shape == (2, 384)
    assert found[0] @ found[1] < 0.999


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\u200b\ufffd", "日本語のテキスト", "x" * 100_000, "🙂" * 300])
def test_odd_texts_get_a_vector_each(embedder: Peer, text: str) -> None:
    found = rows(embedded(embedder, [text, "ordinary"]))
    assert found.shape == (2, 384)
    assert np.isfinite(found).all()


def test_no_texts_get_no_vectors(embedder: Peer) -> None:
    assert embedded(embedder, []).counts == []


def test_a_question_is_answered_before_the_rest_of_a_document(embedder: Peer) -> None:
    embedder.send(Embed(id="document", texts=[LONG] * 3, pool=False), Embed(id="question", texts=["Which valve?"]))
    first, second = embedder.receive(), embedder.receive()
    assert isinstance(first, Vectors)
    assert isinstance(second, Vectors)
    assert (first.id, second.id) == ("question", "document")


def test_a_question_is_answered_before_a_flood_of_others_short_texts(embedder: Peer) -> None:
    flood = [Embed(id=str(number), texts=["text", "more text"]) for number in range(30)]
    embedder.send(*flood, Embed(id="question", texts=["Which valve?"], kind="query"))
    order = [getattr(embedder.receive(), "id", None) for _ in range(31)]
    order.remove("question")
    assert order == [str(number) for number in range(30)]
    embedder.send(Embed(id="document", texts=[LONG]), *flood, Embed(id="question", texts=["Which?"], kind="query"))
    order = [getattr(embedder.receive(), "id", None) for _ in range(32)]
    assert order.index("question") < order.index("29") < order.index("document")


def test_a_short_request_that_is_cancelled_is_dropped(embedder: Peer) -> None:
    embedder.send(Embed(id="a", texts=["one"]), Embed(id="b", texts=["two"] * 3), Cancel(id="b"), Cancel(id="no"))
    replies = [embedder.receive(), embedder.receive()]
    assert {reply.id: isinstance(reply, Failed) for reply in replies if isinstance(reply, Vectors | Failed)} == {
        "a": False,
        "b": True,
    }


def test_requests_of_one_kind_are_answered_in_order(embedder: Peer) -> None:
    embedder.send(*(Embed(id=str(number), texts=["text"]) for number in range(10)))
    assert [getattr(embedder.receive(), "id", None) for _ in range(10)] == [str(number) for number in range(10)]


def test_a_cancelled_document_is_dropped_and_the_next_is_embedded(embedder: Peer) -> None:
    embedder.send(Embed(id="a", texts=[LONG] * 10), Embed(id="b", texts=["one", "two"]), Cancel(id="a"))
    dropped = embedder.receive()
    assert isinstance(dropped, Failed)
    assert (dropped.id, dropped.code) == ("a", "cancelled")
    assert getattr(embedder.receive(), "id", None) == "b"


def test_embedding_before_loading_fails_and_the_child_goes_on(child: Peer, embedder_files: tuple[Path, Path]) -> None:
    child.send(Embed(id="early", texts=["x"]))
    reply = child.receive()
    assert isinstance(reply, Failed)
    assert (reply.id, reply.code) == ("early", "engine_unavailable")
    assert isinstance(child.load(embedder_files), Ready)


def test_a_damaged_model_file_is_named_and_the_child_goes_on(child: Peer, embedder_files: tuple[Path, Path]) -> None:
    swapped = child.load((embedder_files[1], embedder_files[0]))
    assert isinstance(swapped, Failed)
    assert (swapped.id, swapped.code) == ("load", "model_file")
    missing = child.load((embedder_files[0], Path("/nowhere/tokenizer.json")))
    assert isinstance(missing, Failed)
    assert "/nowhere/tokenizer.json" in missing.message
    ready = child.load(embedder_files)
    assert isinstance(ready, Ready)
    assert (ready.width, ready.context) == (384, 256)


def test_a_message_for_the_engine_is_refused(embedder: Peer) -> None:
    embedder.send(Submit(id="s", domain="uid:1", prompt="x"))
    reply = embedder.receive()
    assert isinstance(reply, Failed)
    assert (reply.id, reply.code) == ("s", "invalid_request")


def test_every_way_out_tried_from_inside_the_child_is_refused(embedder: Peer) -> None:
    embedder.send(Probe(id="p"))
    reply = embedder.receive()
    assert isinstance(reply, Probed)
    assert reply.attempts
    assert [attempt for attempt in reply.attempts if not attempt[1]] == []


def test_stop_ends_the_child_with_zero(child: Peer) -> None:
    child.send(Stop())
    assert child.process.wait(20) == 0


def test_the_child_leaves_when_the_daemon_is_gone(child: Peer, embedder_files: tuple[Path, Path]) -> None:
    assert isinstance(child.load(embedder_files), Ready)
    child.send(Embed(id="document", texts=[LONG] * 10))
    child.stream.close()
    assert child.process.wait(20) == 0


@given(st.lists(st.integers(1, 600), max_size=60))
def test_batches_hold_every_text_once_and_stay_small(lengths: list[int]) -> None:
    cut = batches(lengths)
    assert sorted(index for batch in cut for index in batch) == list(range(len(lengths)))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= BATCH_TOKENS


def test_while_another_computes_a_small_question_is_answered_and_a_document_waits(
    embedder_files: tuple[Path, Path],
) -> None:
    turn = Turn.create()
    assert turn.descriptor is not None
    with started(embedder_files, turn.descriptor) as peer:
        assert isinstance(peer.load(embedder_files), Ready)
        before = turn.others_cpu()
        with turn:
            peer.send(Embed(id="document", texts=[LONG]), Embed(id="question", texts=["Is the valve closed?"]))
            first = peer.receive()
            assert isinstance(first, Vectors)
            assert first.id == "question"
        second = peer.receive()
        assert isinstance(second, Vectors)
        assert second.id == "document"
        assert turn.others_cpu() > before
        assert [one.resident > 2**20 for one in peer.stats][:1] == [True]
    os.close(turn.descriptor)

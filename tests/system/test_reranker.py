"""A real ``edged`` with a cross-encoder in a child of its own; searches are explained, reranked and tuned over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.store import Store
from tests.box import Box, prepared
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.embedding import cross_files
from tests.models.entries import entry_text, from_path, own

NAME = "overlap"
QUERY = "gland bolts torque"


@pytest.fixture(scope="module")
def box(
    shared_store: Store, embedder_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    weights = cross_files.write(tmp_path_factory.mktemp("cross") / "cross.onnx")
    chosen = [("weights", None, from_path(weights)), ("tokenizer", None, from_path(embedder_files[1]))]
    text = entry_text(NAME, chosen, "reranker").replace("[prompt]\n", '[prompt]\npooling = "score"\nwindow = 128\n')
    with prepared(shared_store.root) as made:
        settings = made.home / "edge.toml"
        chosen_models = settings.read_text("utf-8").replace("[models]\n", f'[models]\nreranker = "{NAME}"\n')
        settings.write_text(chosen_models, "utf-8")
        own(made.home / "models", NAME, text)
        assert Shell(made.home).edge("model", "pull", NAME).code == 0
        made.start()
        for at, said in enumerate(["The gland is wet.", "Bolts are stored in room 4.", "Gland bolts: torque 35 Nm."]):
            assert made.add(f"{at}.txt", said.encode()).status == 200
        made.wait(lambda: ("reranker", "ready") in {(one["name"], one["state"]) for one in made.status()["children"]})
        yield made


def test_the_reranker_s_probability_is_the_score_and_the_report_says_how_many_it_read(box: Box) -> None:
    body = {"query": QUERY, "k": 3, "explain": True, "rerank_ms": 10_000, "fusion": "rrf"}
    reply = box.post("/edge/v1/search", body).json
    assert reply["hits"][0]["document"] == "2.txt"
    assert reply["report"]["reranked"] == 3
    assert all(hit["parts"]["rerank"] == hit["score"] for hit in reply["hits"])
    assert reply["hits"][0]["score"] > 0.9 > reply["hits"][1]["score"]


def test_without_time_for_it_nothing_is_reranked(box: Box) -> None:
    reply = box.post("/edge/v1/search", {"query": QUERY, "explain": True}).json
    assert reply["report"]["reranked"] == 0
    assert "rerank" not in reply["report"]["timings_ms"]
    assert "report" not in box.post("/edge/v1/search", {"query": QUERY}).json


def test_weights_are_fitted_and_kept_only_where_they_are_better(box: Box) -> None:
    queries = [{"query": QUERY, "documents": ["2.txt"]}] * 6
    reply = box.post("/edge/v1/search/tune", {"queries": queries})
    assert reply.status == 200, reply.body
    assert (reply.json["queries"], reply.json["kept"], reply.json["after"]) == (6, False, 1.0)
    assert set(reply.json["weights"]) >= {"search.default.base", "search.default.code"}


def test_labels_that_say_nothing_are_refused_by_their_query(box: Box) -> None:
    reply = box.post("/edge/v1/search/tune", {"queries": [{"query": QUERY}] * 5})
    assert reply.status == 400
    assert QUERY in reply.body.decode()


@pytest.mark.parametrize("query", ["\ud800", "a\x00b", '"', "x" * 100_000, "who is it"])
def test_odd_queries_are_answered_or_refused_and_never_break_the_daemon(box: Box, query: str) -> None:
    for mode in ("hybrid", "lexical", "dense"):
        assert box.post("/edge/v1/search", {"query": query, "mode": mode}).status in {200, 400}

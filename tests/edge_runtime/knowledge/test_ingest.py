"""Adding documents from bytes to an answerable index, with the real model."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.ingest import ingest
from edge_runtime.knowledge_protocol import DocumentAdded
from tests.edge_runtime.knowledge.conftest import LocalEmbedder
from tests.edge_runtime.knowledge.pdfs import pdf

MANUAL = "# Pump\n\n## Alarms\n\nE17 means low pressure. Open the valve first.\n\n## Oil\n\nUse 2.5 l of oil.\n"


def add(index: Index, embedder: LocalEmbedder, name: str, content: bytes) -> DocumentAdded:
    return asyncio.run(ingest(index, embedder, name, content, "default", Limits()))


def test_a_document_is_stored_with_chunks_windows_and_sentence_vectors(
    index: Index, local_embedder: LocalEmbedder
) -> None:
    added = add(index, local_embedder, "pump.md", MANUAL.encode())
    assert not added.unchanged
    assert added.document.chunks == 2
    chunks = index.chunks(list(index.matching("default", '"oil" OR "pressure"', 10)))
    assert {one.heading for one in chunks} == {("Pump", "Alarms"), ("Pump", "Oil")}
    vector = asyncio.run(local_embedder.embed(["Use 2.5 l of oil."])).rows[0][0]
    best = {
        text: float(row @ vector)
        for sentences in index.sentences([one.id for one in chunks])
        for text, row in zip(sentences.texts, sentences.vectors, strict=True)
    }
    assert max(best, key=best.__getitem__) == "Use 2.5 l of oil."
    assert best["Use 2.5 l of oil."] == pytest.approx(1, abs=2e-3)


def test_the_same_bytes_are_not_embedded_twice(index: Index, local_embedder: LocalEmbedder) -> None:
    first = add(index, local_embedder, "a.txt", b"Some words.")
    before = local_embedder.texts
    again = add(index, local_embedder, "a.txt", b"Some words.")
    assert again.unchanged
    assert again.document == first.document
    assert local_embedder.texts == before


def test_lines_that_repeat_are_embedded_once(index: Index, local_embedder: LocalEmbedder) -> None:
    before = local_embedder.texts
    add(index, local_embedder, "a.log", b"12:00:00 INFO pump runs\n" * 400)
    assert local_embedder.texts - before < 30
    assert index.stats().sentences == 400


def test_every_word_of_a_long_document_is_in_a_window_of_its_chunk(index: Index, local_embedder: LocalEmbedder) -> None:
    text = " ".join(f"Valve {number} feeds basin {number * 7}." for number in range(300))
    add(index, local_embedder, "valves.txt", text.encode())
    stats = index.stats()
    ids = list(index.matching("default", '"valve"', 100))
    assert len(ids) == stats.chunks > 3
    windows = 0
    for one in index.chunks(ids):
        offsets = local_embedder.offsets(one.text)
        assert one.tokens == len(offsets) <= 600
        vectors = asyncio.run(local_embedder.embed([one.text], pool=False))
        covered = {at for first, last in vectors.spans[0] for at in range(first, last)}
        assert covered == set(range(len(one.text)))
        windows += len(vectors.rows[0])
    assert windows == stats.windows


def test_a_refused_document_leaves_the_older_one(index: Index, local_embedder: LocalEmbedder) -> None:
    kept = add(index, local_embedder, "a.pdf", pdf([["First edition."]]))
    with pytest.raises(DocumentError, match="scan"):
        add(index, local_embedder, "a.pdf", pdf([None]))
    with pytest.raises(TooLargeError):
        asyncio.run(ingest(index, local_embedder, "a.pdf", b"x" * 11, "default", Limits(document_bytes=10)))
    assert index.documents() == [kept.document]


def test_warnings_of_the_parser_reach_the_caller(index: Index, local_embedder: LocalEmbedder) -> None:
    added = add(index, local_embedder, "mixed.pdf", pdf([["Read me."], None]))
    assert re.search(r"page 2 can be seen", added.warnings[0])
    assert added.document.pages == 2


def test_stored_vectors_have_unit_length(index: Index, local_embedder: LocalEmbedder) -> None:
    add(index, local_embedder, "pump.md", MANUAL.encode())
    for sentences in index.sentences(list(index.matching("default", '"oil" OR "pressure"', 10))):
        assert np.linalg.norm(sentences.vectors, axis=1) == pytest.approx(1, abs=2e-3)

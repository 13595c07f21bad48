"""Adding documents from bytes to an answerable index, with the real model."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import Limits
from edge_runtime.knowledge.filters import Scope
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.ingest import Arrival, Recent
from edge_runtime.knowledge.records import EmbeddedChunk
from edge_runtime.knowledge_protocol import DocumentAdded
from tests.edge_runtime.knowledge.conftest import LocalEmbedder, ingest
from tests.edge_runtime.knowledge.pdfs import pdf

MANUAL = "# Pump\n\n## Alarms\n\nE17 means low pressure. Open the valve first.\n\n## Oil\n\nUse 2.5 l of oil.\n"


def add(index: Index, embedder: LocalEmbedder, name: str, content: bytes) -> DocumentAdded:
    return asyncio.run(ingest(embedder.intake(index), name, content))


def scope(index: Index) -> Scope:
    found = index.scope("default", None)
    assert found is not None
    return found


def test_a_document_is_stored_with_chunks_windows_and_sentence_vectors(
    index: Index, local_embedder: LocalEmbedder
) -> None:
    added = add(index, local_embedder, "pump.md", MANUAL.encode())
    assert not added.unchanged
    assert added.document.chunks == 2
    chunks = index.chunks(list(index.matching(scope(index), '"oil" OR "pressure"', 10)))
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
    ids = list(index.matching(scope(index), '"valve"', 100))
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
        asyncio.run(ingest(local_embedder.intake(index, Limits(document_bytes=10)), "a.pdf", b"x" * 11))
    assert index.documents() == [kept.document]


def test_warnings_of_the_parser_reach_the_caller(index: Index, local_embedder: LocalEmbedder) -> None:
    added = add(index, local_embedder, "mixed.pdf", pdf([["Read me."], None]))
    assert re.search(r"page 2 can be seen", added.warnings[0])
    assert added.document.pages == 2


def test_stored_vectors_have_unit_length(index: Index, local_embedder: LocalEmbedder) -> None:
    add(index, local_embedder, "pump.md", MANUAL.encode())
    for sentences in index.sentences(list(index.matching(scope(index), '"oil" OR "pressure"', 10))):
        assert np.linalg.norm(sentences.vectors, axis=1) == pytest.approx(1, abs=2e-3)


# ---- what is known already -----------------------------------------------------------------------------------------

PARTS = [
    f"# Pump P{n}\n\nPump P{n} turns at {n * 10} rpm. Its gland is packed with grade {n} rope.\n" for n in range(6)
]


def test_only_what_changed_of_a_document_is_embedded_again(index: Index, local_embedder: LocalEmbedder) -> None:
    first = add(index, local_embedder, "pumps.md", "\n".join(PARTS).encode())
    assert (first.embedded, first.reused) == (6, 0)
    before = local_embedder.texts
    changed = [*PARTS[:3], PARTS[3].replace("30 rpm", "31 rpm"), *PARTS[4:]]
    second = add(index, local_embedder, "pumps.md", "\n".join(changed).encode())
    assert (second.embedded, second.reused) == (1, 5)
    assert local_embedder.texts - before == 2  # the passage, and the one sentence in it that is another
    assert second.document.id != first.document.id
    assert [document.id for document in index.documents()] == [second.document.id]


def test_vectors_that_were_kept_are_those_that_would_be_computed(
    index: Index, local_embedder: LocalEmbedder, tmp_path: Path
) -> None:
    add(index, local_embedder, "pumps.md", "\n".join(PARTS).encode())
    moved = "\n".join(reversed(PARTS)).encode()
    kept = add(index, local_embedder, "pumps.md", moved)
    assert (kept.embedded, kept.reused) == (0, 6)
    fresh = Index.open(tmp_path / "fresh.db", embedder="test")
    add(fresh, local_embedder, "pumps.md", moved)
    for query in ("gland rope of grade 4", "50 rpm"):
        vector = asyncio.run(local_embedder.embed([query])).rows[0][0]
        ours, theirs = (sorted(one.nearest(scope(one), vector, 50).values()) for one in (index, fresh))
        assert ours == pytest.approx(theirs, abs=1e-5)
        ours, theirs = (
            [rows.vectors @ vector for rows in one.sentences(sorted(one.nearest(scope(one), vector, 50)))]
            for one in (index, fresh)
        )
        assert np.concatenate(ours) == pytest.approx(np.concatenate(theirs), abs=2e-3)
    fresh.close()


def test_a_sentence_that_is_its_whole_passage_is_embedded_once(index: Index, local_embedder: LocalEmbedder) -> None:
    before = local_embedder.texts
    add(index, local_embedder, "one.txt", b"The strainer of pump P9 is cleaned every week.")
    assert local_embedder.texts - before == 1
    assert (index.stats().windows, index.stats().sentences) == (1, 1)


def test_what_another_document_says_in_the_same_words_is_not_embedded_again(
    index: Index, local_embedder: LocalEmbedder
) -> None:
    async def both() -> tuple[DocumentAdded, DocumentAdded, int]:
        intake = local_embedder.intake(index)
        one = await intake.add(Arrival(name="a.md", content="\n".join(PARTS).encode(), collection="default"))
        before = local_embedder.texts
        other = await intake.add(Arrival(name="b.md", content="\n".join(PARTS[:5]).encode(), collection="default"))
        return one, other, local_embedder.texts - before

    one, other, texts = asyncio.run(both())
    assert (one.embedded, other.embedded, other.reused, texts) == (6, 0, 5, 0)


def test_what_is_remembered_of_former_documents_is_bounded_and_can_be_forgotten() -> None:
    recent = Recent(rows=5)
    for n in range(10):
        recent.put(bytes([n]), EmbeddedChunk(np.full((1, 4), n, np.float32), [(0, 1)]))
    assert [n for n in range(10) if recent.get(bytes([n])) is not None] == [5, 6, 7, 8, 9]
    recent.forget()
    assert recent.get(b"\x09") is None


def test_other_tags_for_the_same_bytes_change_the_tags_and_embed_nothing(
    index: Index, local_embedder: LocalEmbedder
) -> None:
    def tag(*tags: str, date: str | None = None, content: bytes = MANUAL.encode()) -> DocumentAdded:
        arrival = Arrival(name="pump.md", content=content, collection="default", tags=tags, date=date)
        return asyncio.run(local_embedder.intake(index).add(arrival))

    first = tag("pumps", date="2026-05-01")
    before = local_embedder.texts
    assert tag().document == first.document
    second = tag("pumps", "hall-2")
    assert (second.unchanged, second.document.id, local_embedder.texts) == (True, first.document.id, before)
    assert (second.document.tags, second.document.date) == (["hall-2", "pumps"], "2026-05-01")
    changed = tag(content=MANUAL.encode() + b"\nEdited.\n")
    assert (changed.document.tags, changed.document.date) == (["hall-2", "pumps"], "2026-05-01")


def test_many_documents_at_once_are_stored_like_one_after_the_other(
    index: Index, local_embedder: LocalEmbedder, tmp_path: Path
) -> None:
    texts = {f"p{n}.md": f"# P{n}\n\nPump {n} has {n} valves. It is green.\n".encode() for n in range(12)}

    async def crowd() -> None:
        intake = local_embedder.intake(index)
        arrivals = [Arrival(name=name, content=text, collection="default") for name, text in texts.items()]
        await asyncio.gather(*(intake.add(arrival) for arrival in arrivals))

    asyncio.run(crowd())
    fresh = Index.open(tmp_path / "fresh.db", embedder="test")
    for name, text in texts.items():
        add(fresh, local_embedder, name, text)
    one, other = index.stats(), fresh.stats()
    assert (one.documents, one.chunks, one.windows, one.sentences) == (12, other.chunks, other.windows, other.sentences)
    vector = asyncio.run(local_embedder.embed(["How many valves has pump 7?"])).rows[0][0]
    assert sorted(index.nearest(scope(index), vector, 50).values()) == pytest.approx(
        sorted(fresh.nearest(scope(fresh), vector, 50).values()), abs=1e-5
    )
    fresh.close()

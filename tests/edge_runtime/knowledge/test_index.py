"""The index on a real disk: atomic, purging, honest about damage and full disks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import NotFoundError, RefusedError, RequestError, StorageError
from edge_runtime.knowledge.database import Database
from edge_runtime.knowledge.digests import chunk_digest, text_digest
from edge_runtime.knowledge.documents import Chunk
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.lookup import Lookup
from edge_runtime.knowledge.records import Known
from edge_runtime.knowledge.rows import PART_CHARS
from edge_runtime.knowledge.rows import text as stored_text
from edge_runtime.knowledge.storing import count_embedded, insert_text
from edge_runtime.knowledge_protocol import Filter
from tests.edge_runtime.knowledge.conftest import direction, everything, written


def test_a_stored_document_gives_back_its_text_chunks_and_sentences(index: Index) -> None:
    text = "Alarm E17 means low pressure. " * 10
    document = index.add(written("pump.txt", text, parts=3, seed=5))
    assert (document.name, document.characters, document.chunks) == ("pump.txt", len(text), 3)
    assert index.documents() == [document] == index.documents("default")
    assert index.documents("other") == []
    assert index.text(document.id) == text
    assert index.text(document.id, 6, 9) == "E17"
    assert index.text(document.id, -5, 5) == "Alarm"
    assert index.text(document.id, len(text) + 5, len(text) + 9) == ""
    best = next(iter(index.nearest(everything(index), direction(6, 2)[1], 4)))
    (row,) = index.chunks([best])
    assert row.text == text[row.start : row.end]
    assert (row.heading, row.page, row.document) == (("Top", "Sub"), 2, "pump.txt")
    (sentences,) = index.sentences([best])
    assert sentences.texts == [text[span.start : span.end] for span in sentences.spans]
    assert sentences.vectors @ direction(82, 3)[1] == pytest.approx(1, abs=1e-3)


def test_the_same_bytes_again_change_nothing(index: Index) -> None:
    first = index.add(written("a", "text one", sha256="s1"))
    epoch = index.stats().epoch
    assert index.add(written("a", "text one", sha256="s1")) == first
    assert index.stats().epoch == epoch


def test_other_bytes_under_a_name_replace_the_document_whole(index: Index) -> None:
    first = index.add(written("a", "old words alone", parts=3))
    second = index.add(written("a", "new words", seed=9))
    assert second.id != first.id
    assert [one.id for one in index.documents()] == [second.id]
    assert index.matching(everything(index), '"old"', 10) == {}
    assert len(index.matching(everything(index), '"new"', 10)) == 1
    assert index.stats().windows == 2
    with pytest.raises(NotFoundError):
        index.document(first.id)


def test_the_same_name_in_two_collections_is_two_documents(index: Index) -> None:
    index.add(written("a", "one", collection="x"))
    index.add(written("a", "two", collection="y"))
    assert len(index.documents()) == 2
    assert len(index.documents("x")) == 1


def test_removing_purges_every_trace_from_the_file(index: Index, tmp_path: Path) -> None:
    kept = index.add(written("keep", "harmless words"))
    gone = index.add(written("secret", "The vault code is xylophone4711. " * 50, parts=4, seed=50))
    assert b"xylophone4711" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert index.remove(gone.id) == {"chunks": 4, "vectors": 8, "sentences": 4}
    assert b"xylophone4711" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"xylophone" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [one.id for one in index.documents()] == [kept.id]
    assert index.rarity(["xylophone4711"])[1] == {}
    with pytest.raises(NotFoundError, match="edge docs"):
        index.remove(gone.id)


def test_the_file_does_not_grow_when_documents_are_replaced_again_and_again(index: Index) -> None:
    def add(turn: int) -> int:
        index.add(written("a", f"turn {turn} " * 2000, parts=40, seed=turn))
        return index.stats().file_bytes

    first = add(0)
    assert max(add(turn) for turn in range(1, 15)) < 1.5 * first


def test_vectors_that_do_not_match_their_spans_are_refused(index: Index) -> None:
    document = written("a", "text")
    document.windows.clear()
    with pytest.raises(RequestError):
        index.add(document)
    assert index.stats().documents == 0


def test_readers_in_other_threads_see_whole_documents_while_one_is_replaced(index: Index) -> None:
    index.add(written("a", "word " * 500, parts=20))
    torn: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            stats = index.stats()
            if (stats.documents, stats.chunks, stats.windows) != (1, 20, 40):
                torn.append(stats)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        index.add(written("a", f"{turn} " * 1000, parts=20, seed=turn))
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []


@given(st.integers(0, 3 * PART_CHARS), st.integers(0, 3 * PART_CHARS), st.integers(0, 3 * PART_CHARS))
def test_any_stretch_of_a_long_text_is_verbatim(length: int, start: int, end: int) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE texts (document, start, text)")
    text = "".join(chr(0x100 + at % 5000) for at in range(length))
    insert_text(connection, 1, text)
    assert stored_text(connection, 1, start, end) == text[start:end]


_ADD = """
import sys
from pathlib import Path
from edge_runtime.knowledge.index import Index
from tests.edge_runtime.knowledge.conftest import written
index = Index.open(Path(sys.argv[1]), embedder="test")
print("open", flush=True)
for turn in range(10_000):
    index.add(written("a", f"turn {turn} " * 3000, parts=30, seed=turn))
"""


def test_a_process_killed_while_adding_leaves_one_whole_document(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    for wait in (0.05, 0.13, 0.31):
        process = subprocess.Popen([sys.executable, "-c", _ADD, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        index = Index.open(path, embedder="test")
        stats = index.stats()
        assert (stats.documents, stats.chunks, stats.windows, stats.sentences) in {(1, 30, 60, 30), (0, 0, 0, 0)}
        assert len(index.matching(everything(index), '"turn"', 100)) == stats.chunks
        assert len(index.nearest(everything(index), direction(1)[0], 100)) == stats.chunks
        index.close()


def test_an_index_of_another_embedder_can_be_read_and_takes_nothing_unless_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Index.open(path, embedder="one").close()
    index = Index.open(path, embedder="two")
    index.add(written("a", "words"))
    index.close()
    other = Index.open(path, embedder="one")
    assert (other.stale, other.embedder, len(other.documents())) == (True, "two", 1)
    with pytest.raises(RefusedError, match=r"vectors of two.*edge index reembed"):
        other.add(written("b", "more"))
    other.close()
    again = Index.open(path, embedder="two")
    assert not again.stale
    again.close()


def test_a_backup_is_a_whole_index(index: Index, tmp_path: Path) -> None:
    index.add(written("a", "words"))
    index.backup(tmp_path / "copy.db")
    copy = Index.open(tmp_path / "copy.db", embedder="test")
    assert copy.documents() == index.documents()
    assert np.isclose(next(iter(copy.nearest(everything(copy), direction(0, 2)[0], 2).values())), 1, atol=1e-3)
    copy.close()


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db", embedder="test")
    index.close()
    with pytest.raises(StorageError, match="closed"):
        index.documents()
    with pytest.raises(StorageError, match="closed"):
        index.add(written("a", "words"))


def test_a_collection_keeps_its_label_and_its_readers(index: Index) -> None:
    assert index.collection("hr") is None
    made = index.set_collection("hr", sensitivity="secret", uids=[1000], gids=[50])
    assert (made.sensitivity, made.uids, made.gids) == ("secret", {1000}, {50})
    changed = index.set_collection("hr", uids=[])
    assert (changed.sensitivity, changed.uids, changed.gids) == ("secret", frozenset(), {50})
    index.add(written("a", "words"))
    assert [(one.name, one.sensitivity) for one in index.collections()] == [("default", "internal"), ("hr", "secret")]


def test_what_a_document_has_embedded_is_known_by_the_digests_of_its_chunks_and_sentences(index: Index) -> None:
    text = "Alarm E17 means low pressure. " * 4
    document = written("pump.txt", text, parts=4, seed=5)
    index.add(document)
    known = index.known("default", "pump.txt")
    chunk = document.chunks[0]
    digest = chunk_digest(chunk.heading, text[chunk.start : chunk.end])
    assert set(known.chunks) == {digest}  # the four are alike
    assert known.chunks[digest].spans == document.window_spans[0]
    assert np.array_equal(known.chunks[digest].rows, document.windows[3])
    sentence = known.sentences[text_digest(text[chunk.start : chunk.end])]
    assert np.array_equal(sentence, document.sentence_vectors[3].astype(np.float16))
    assert index.known("default", "other") == index.known("nowhere", "pump.txt") == Known()


def test_the_same_bytes_with_other_tags_change_the_tags_alone(index: Index) -> None:
    first = index.add(written("a", "words", sha256="s", tags=("x",), date="2024-01-02"))
    second = index.add(written("a", "words", sha256="s", tags=("y", "x")))
    assert (second.id, second.added, second.tags, second.date) == (first.id, first.added, ["x", "y"], None)
    assert index.label(first.id, tags=(), date="2020-02-29").date == "2020-02-29"
    with pytest.raises(NotFoundError):
        index.label("doc-none", tags=(), date=None)


def test_coverage_is_the_share_of_visible_characters_in_a_window(index: Index) -> None:
    assert index.report().coverage == 1.0
    half = replace(written("a", "ab \n cd", parts=1), window_spans=[[(0, 2), (0, 1)]])
    index.add(half)
    assert index.report().coverage == 0.5
    index.add(written("b", "wxyz" * 3, parts=3))
    assert index.report().coverage == pytest.approx(14 / 16)
    index.add(replace(half, sha256="other", window_spans=[[(0, 4), (3, 7)]]))
    assert index.report().coverage == 1.0
    counts = index.report()
    assert (counts.documents, counts.chunks, counts.windows, counts.sentences) == (2, 4, 8, 4)
    assert counts.embedder == "test/384"


@given(st.text(" ab\n", max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8))
def test_characters_that_lie_in_several_windows_count_once(text: str, windows: list[tuple[int, int]]) -> None:
    spans = [(min(pair), min(max(pair), len(text))) for pair in windows]
    document = replace(
        written("a", "x"),
        text=text,
        chunks=[Chunk(0, len(text), (), None, 1)],
        windows=[direction(0, len(spans))],
        window_spans=[spans],
    )
    covered = {at for start, end in spans for at in range(start, end)}
    assert count_embedded(document) == sum(not text[at].isspace() for at in covered)


def test_settings_are_kept_and_found_by_how_their_names_begin(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db", embedder="test")
    epoch = index.stats().epoch
    index.keep_settings({"search.default.base": 0.1 + 0.2, "search.hr.base": 1.0, "other": -1e-9})
    index.close()
    index = Index.open(tmp_path / "index.db", embedder="test")
    assert index.setting("search.default.base", 0.5) == 0.1 + 0.2
    assert index.setting("search.none.base", 0.5) == 0.5
    assert index.settings("search.default.") == {"search.default.base": 0.1 + 0.2}
    assert len(index.settings()) == 3
    assert index.stats().epoch == epoch
    index.close()


def test_how_many_chunks_hold_a_term_is_exact_for_rare_ones_and_close_for_common_ones(index: Index) -> None:
    index.add(written("rare", "quartz " + "filler " * 50))
    index.add(written("common", "pump alarm " * 3000, parts=3000))
    index.add(written("some", "valve closed " * 900, parts=900, collection="other"))
    total, counts = index.rarity(["quartz", "pump", "valv", "nothing"])
    assert total == 3901
    assert counts["quartz"] == 1
    assert counts["valv"] == 900
    assert counts["pump"] == pytest.approx(3000, rel=0.35)
    assert "nothing" not in counts
    index.add(written("more", "quartz clock"))
    assert index.rarity(["quartz"])[1] == {"quartz": 2}


def test_an_index_that_nobody_changes_can_be_read_as_an_immutable_file(index: Index, tmp_path: Path) -> None:
    document = index.add(written("a", "words of the plant", tags=("t",)))
    (tmp_path / "shared").mkdir()
    path = tmp_path / "shared" / "a file?.db"
    index.backup(path)
    path.chmod(0o400)
    lookup = Lookup(Database(path, width=384, immutable=True), width=384)
    scope = lookup.scope("default", Filter(tags=["t"]))
    assert scope is not None
    assert lookup.chunks(list(lookup.matching(scope, '"plant"', 5)))[0].document_id == document.id
    assert len(lookup.nearest(scope, direction(0)[0], 5)) == 1
    lookup.close()
    assert [one.name for one in path.parent.iterdir()] == ["a file?.db"]  # no log beside it

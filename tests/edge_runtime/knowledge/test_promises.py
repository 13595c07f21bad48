"""Whatever happens to an index, a search returns nothing that was deleted, is not for its asker, or is filtered out."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_runtime.errors import PermissionDeniedError
from edge_runtime.knowledge.coarse import Coarse
from edge_runtime.knowledge.collections import Collection, Reader
from edge_runtime.knowledge.documents import Chunk, Span
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import Matrix, PreparedDocument
from edge_runtime.knowledge.search import search
from edge_runtime.knowledge_protocol import Filter, SearchMode

WIDTH = 16
COLLECTIONS = ("default", "hr")
NAMES = ("a", "b", "c", "d")
TAGS = ("red", "green")
DATES = (None, "2019-01-01", "2024-06-30")
MODES: tuple[SearchMode, ...] = ("dense", "lexical", "hybrid")
WORDS = ("pump", "valve", "seal", "alarm")

collections = st.sampled_from(COLLECTIONS)
names = st.sampled_from(NAMES)
tags = st.lists(st.sampled_from(TAGS), unique=True)
dates = st.sampled_from(DATES)
READERS = (None, Reader(1), Reader(2), Reader(3, frozenset({7})))
FILTERS = (
    None,
    Filter(),
    Filter(documents=["a", "c", "nobody"]),
    Filter(documents=["nobody"]),
    Filter(tags=["red"]),
    Filter(tags=["red", "green"]),
    Filter(since="2020-01-01"),
    Filter(since="2019-01-01", until="2019-01-01", tags=["green"]),
    Filter(documents=["b", "d"], until="2030-01-01"),
)
SEARCHES = 12  # after each step


@dataclass(frozen=True, slots=True)
class Held:
    """What the index should hold of a document."""

    words: tuple[str, ...]  # one a chunk
    tags: tuple[str, ...]
    date: str | None
    mark: int

    def passes(self, name: str, wanted: Filter | None) -> bool:
        if wanted is None:
            return True
        return (
            (not wanted.documents or name in wanted.documents)
            and set(wanted.tags) <= set(self.tags)
            and (wanted.since is None or (self.date is not None and self.date >= wanted.since))
            and (wanted.until is None or (self.date is not None and self.date <= wanted.until))
        )

    @property
    def texts(self) -> list[str]:
        return [f"{word} m{self.mark}n{at} " for at, word in enumerate(self.words)]


def unit(seed: int) -> Matrix:
    row = np.random.default_rng(seed).standard_normal((1, WIDTH)).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row), np.float32)


def prepared(collection: str, name: str, held: Held) -> PreparedDocument:
    ends = np.cumsum([len(text) for text in held.texts]).tolist()
    spans = [Span(end - len(text), end) for text, end in zip(held.texts, ends, strict=True)]
    return PreparedDocument(
        name=name,
        collection=collection,
        format="text",
        sha256=f"s{held.mark}",
        title=name,
        text="".join(held.texts),
        pages=None,
        chunks=[Chunk(span.start, span.end, (), None, 3) for span in spans],
        windows=[unit(hash((held.mark, at)) % 2**32) for at in range(len(spans))],
        window_spans=[[(0, span.end - span.start)] for span in spans],
        sentences=spans,
        sentence_vectors=np.vstack([unit(at) for at in range(len(spans))]),
        tags=held.tags,
        date=held.date,
    )


class Promises(RuleBasedStateMachine):
    """An index, with the coarse copy at times, beside a dictionary that says what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index.db"
        self.index = Index.open(self.path, embedder="test", width=WIDTH)
        self.held: dict[tuple[str, str], Held] = {}
        self.access: dict[str, tuple[frozenset[int], frozenset[int]]] = {}
        self.mark = 0
        self.steps = 0

    def teardown(self) -> None:
        self._close()
        self.folder.cleanup()

    def _close(self) -> None:
        if self.index.coarse is not None:
            self.index.coarse.close()
        self.index.close()

    @initialize(coarse=st.booleans())
    def begin(self, coarse: bool) -> None:
        self.index.set_collection("default")
        self.index.set_collection("hr")
        for at, name in enumerate(NAMES):
            self.add("default", name, list(WORDS[: at + 1]), list(TAGS[: at % 3]), DATES[at % 3])
        if coarse:
            self.scan_coarsely()

    @rule(collection=collections, name=names, words=st.lists(st.sampled_from(WORDS), min_size=1), tags=tags, date=dates)
    def add(self, collection: str, name: str, words: list[str], tags: list[str], date: str | None) -> None:
        self.mark += 1
        held = Held(tuple(words), tuple(tags), date, self.mark)
        self.index.add(prepared(collection, name, held))
        self.held[collection, name] = held

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        collection, name = data.draw(st.sampled_from(sorted(self.held)))
        (one,) = [one for one in self.index.documents(collection) if one.name == name]
        self.index.remove(one.id)
        del self.held[collection, name]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tags=tags, date=dates)
    def label(self, data: st.DataObject, tags: list[str], date: str | None) -> None:
        collection, name = data.draw(st.sampled_from(sorted(self.held)))
        held = self.held[collection, name]
        labelled = Held(held.words, tuple(tags), date, held.mark)
        self.index.add(prepared(collection, name, labelled))  # the same bytes
        self.held[collection, name] = labelled

    @rule(collection=collections, uids=st.sets(st.sampled_from([1, 2])), gids=st.sets(st.just(7)))
    def change_readers(self, collection: str, uids: set[int], gids: set[int]) -> None:
        self.index.set_collection(collection, uids=sorted(uids), gids=sorted(gids))
        self.access[collection] = (frozenset(uids), frozenset(gids))

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def reopen(self) -> None:
        self._close()
        self.index = Index.open(self.path, embedder="test", width=WIDTH)

    @rule()
    def scan_coarsely(self) -> None:
        if self.index.coarse is None:
            self.index.coarse = Coarse.open(Path(self.folder.name) / "scan", WIDTH)
        with self.index.vectors() as (epoch, blocks):
            self.index.coarse.rebuild(blocks, epoch)
        assert self.index.scanned()

    @invariant()
    def finds_what_may_be_found_and_nothing_else(self) -> None:
        self.steps += 1
        choice = random.Random(self.steps)  # a step's searches are the same each time it is tried
        for _ in range(SEARCHES):
            self.search(
                choice.choice(COLLECTIONS),
                choice.choice(WORDS),
                choice.choice(MODES),
                reader=choice.choice(READERS),
                wanted=choice.choice(FILTERS),
                k=choice.choice([1, 3, 50]),
                vector=unit(choice.randrange(5))[0],
            )

    def search(
        self,
        collection: str,
        word: str,
        mode: SearchMode,
        *,
        reader: Reader | None,
        wanted: Filter | None,
        k: int,
        vector: Matrix,
    ) -> None:
        uids, gids = self.access.get(collection, (frozenset(), frozenset()))
        allowed = reader is None or Collection(collection, "internal", uids, gids).readable(reader)
        try:
            found = search(
                self.index, word, vector, collection=collection, mode=mode, k=k, readers=reader, filter=wanted
            )
        except PermissionDeniedError:
            assert not allowed
            return
        assert allowed
        passing = {
            (name, text.strip()): (text.split()[0] == word)
            for (where, name), held in self.held.items()
            if where == collection and held.passes(name, wanted)
            for text in held.texts
        }
        for one in found:
            assert (one.document, one.text.strip()) in passing
        match mode:
            case "dense" | "hybrid":
                assert len(found) == min(k, len(passing))
            case "lexical":
                assert len(found) == min(k, sum(passing.values()))

    @invariant()
    def holds_what_was_added(self) -> None:
        assert {(one.collection, one.name) for one in self.index.documents()} == set(self.held)
        report = self.index.report()
        assert report.chunks == report.windows == sum(len(held.words) for held in self.held.values())
        assert report.coverage == 1.0


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)

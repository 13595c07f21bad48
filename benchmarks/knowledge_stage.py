"""What the scenarios of the knowledge benchmark stand on: texts, vectors, indexes that are kept, boxes upon them."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from benchmarks import corpus, questions
from benchmarks.box import SMALL_WRITER, Box
from benchmarks.corpus import Corpus
from benchmarks.encoding import CachedEmbedder
from benchmarks.stage import Outcome
from edge_runtime import knowledge
from edge_runtime.evaluation import Labelled, read_questions
from edge_runtime.knowledge.documents import Chunk
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import Matrix, PreparedDocument
from edge_runtime.protocol import DEFAULT_COLLECTION

WIDTH = 384
PER_DOCUMENT = 100  # passages of one document of the large index
SQUAD = "squad2_normans.json"
_READY_SECONDS = 180.0


@dataclass
class Stand:
    """One run. ``cache`` keeps texts, vectors and indexes between runs; ``data`` holds the files of others."""

    cache: Path
    scratch: Path
    data: Path | None
    quick: bool

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.load(self.cache, quick=self.quick)

    @cached_property
    def large(self) -> int:
        """Vectors, and passages, of the large index."""
        return 20_000 if self.quick else 100_000

    @cached_property
    def pages(self) -> list[tuple[str, str, str]]:
        """Man pages as name, description and text."""
        found = corpus.pages(120 if self.quick else 500, longest=12_000, per_family=15)
        if len(found) < 100:
            raise RuntimeError(f"this machine has {len(found)} man pages that can be used, and 100 are needed")
        return [(f"{page.name}.md", page.description, page.text) for page in found]

    @cached_property
    def squad(self) -> tuple[dict[str, bytes], list[Labelled]]:
        """The paragraphs as documents, and all questions; one that can be answered names its paragraph.

        Raises:
            RuntimeError: the file is not there.
        """
        path = self.data / SQUAD if self.data else None
        if path is None or not path.exists():
            raise RuntimeError(f"{SQUAD} is not there: name its folder with --data")
        documents, asked = questions.squad(path)
        return documents, [
            Labelled(
                question=one.text,
                documents=[one.document] if one.is_answerable else [],
                answers=sorted(one.golds),
                answerable=one.is_answerable,
            )
            for one in asked
        ]

    def labelled(self, name: str) -> list[Labelled]:
        """The questions of a file of ``data``."""
        return read_questions((self.data or self.cache) / name)

    @contextmanager
    def box(self, name: str = "", fill: Callable[[Index], None] | None = None) -> Iterator[Box]:
        """A box; upon an index that ``fill`` makes where the cache has none called ``name`` made by the same code."""
        with Box(SMALL_WRITER) as box:
            if fill is not None:
                with box.stopped():
                    shutil.copy(self._kept(name, fill, _identity(box)), box.home / "index.db")
                    for rest in ("index.db-wal", "index.db-shm"):
                        (box.home / rest).unlink(missing_ok=True)
                settle(box)
            yield box

    def _kept(self, name: str, fill: Callable[[Index], None], identity: str) -> Path:
        digest = blake2b(identity.encode(), digest_size=8)
        for path in sorted(Path(next(iter(knowledge.__path__))).glob("*.py")):
            digest.update(path.read_bytes())
        target = self.cache / f"{name}{'-quick' if self.quick else ''}-{digest.hexdigest()}.db"
        if not target.exists():
            for stale in self.cache.glob(f"{name}{'-quick' if self.quick else ''}-????????????????.db"):
                stale.unlink()
            print(f"making the index {name}", file=sys.stderr, flush=True)
            part = self.scratch / f"{name}.db"
            index = Index.open(part, embedder=identity, width=WIDTH)
            try:
                fill(index)
                index.backup(target.with_suffix(".part"))
            finally:
                index.close()
            target.with_suffix(".part").rename(target)
            part.unlink()
        return target

    def fill_large(self, index: Index) -> None:
        """As many vectors as passages, jittered and varied (:mod:`benchmarks.corpus`)."""
        rows = corpus.jittered(self.corpus.rows, self.large)
        texts = corpus.varied(self.corpus.texts, self.large)
        for first in range(0, self.large, PER_DOCUMENT):
            part = [next(texts) for _ in range(PER_DOCUMENT)]
            index.add(document(f"volume-{first // PER_DOCUMENT:05d}.txt", part, rows[first : first + PER_DOCUMENT]))


def document(name: str, texts: Sequence[str], rows: Matrix) -> PreparedDocument:
    """One passage of each text, with one window, which is its row of ``rows`` (len(texts), width)."""
    whole, at, chunks = "\n\n".join(texts), 0, []
    for text in texts:
        chunks.append(Chunk(start=at, end=at + len(text), heading=(), page=None, tokens=len(text) // 4))
        at += len(text) + 2
    return PreparedDocument(
        name=name,
        collection=DEFAULT_COLLECTION,
        format="text",
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
        title=name,
        text=whole,
        pages=None,
        chunks=chunks,
        windows=[row[None] for row in rows],
        window_spans=[[(0, len(text))] for text in texts],
    )


def settle(box: Box) -> None:
    """Wait until the coarse copy of the index is ready.

    Raises:
        RuntimeError: it is not, after minutes.
    """
    deadline = time.monotonic() + _READY_SECONDS
    with box.client() as client:
        while not (report := client.index_report()).scan_ready and report.windows:
            if time.monotonic() > deadline:
                raise RuntimeError("the coarse copy was not ready in time; the daemon's log says why")
            time.sleep(0.2)


def _identity(box: Box) -> str:
    """What the box calls its embedder, as its index says."""
    kept = sqlite3.connect(f"file:{box.home / 'index.db'}?mode=ro", uri=True)
    try:
        ((value,),) = kept.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchall()
    finally:
        kept.close()
    return str(value).rpartition("/")[0]


def adding(box: Box, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """``edge add FOLDER`` as a process."""
    program = str(Path(sys.prefix) / "bin" / "edge")
    environment = {**os.environ, "EDGE_HOME": str(box.home)}
    for name in ("EDGE_SOCKET", "EDGE_CONFIG"):
        environment.pop(name, None)
    return subprocess.Popen(
        [program, "add", str(folder), *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def write_pages(folder: Path, pages: Sequence[tuple[str, str, str]]) -> Path:
    """The pages as files."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, _, text in pages:
        (folder / name).write_text(text, "utf-8")
    return folder


def embedder(stand: Stand) -> CachedEmbedder:
    return CachedEmbedder(stand.cache)


Scenario = Callable[[Stand], Outcome]

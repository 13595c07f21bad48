"""The box's own embedder in this process, with what it said kept on disk: a text is embedded once for all runs."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from edge_runtime.config import ModelsConfig
from edge_runtime.embedding.child import batches
from edge_runtime.embedding.onnx import Encoder, Kind, Piece, Reading
from edge_runtime.embedding.windows import pool as pooled
from edge_runtime.knowledge.embedder import TextKind, Vectors
from edge_runtime.knowledge.records import Matrix
from edge_runtime.paths import Paths
from models.catalog import Prompt
from models.store import Store

LARGE_BATCH = 4096  # padded tokens a run, where nobody waits for a turn
_AT_ONCE = 2048  # texts between two commits
_T = TypeVar("_T")
_Entry = tuple[Matrix, list[tuple[int, int]]]


def bare_encoder(name: str = "", *, weights: Path | None = None, threads: int = 0) -> Encoder:
    """The encoder of a model of the catalogue that is installed here, with other ``weights`` where they are given.

    Raises:
        ModelFileError, ModelError: it is not installed, or damaged.
    """
    store = Store(Paths.from_environment().models, quota_bytes=2**60)
    name = name or ModelsConfig().embedder
    files, prompt = store.get(name).files, store.entry(name).prompt or Prompt()
    pooling: Literal["mean", "cls"] = "cls" if prompt.pooling == "cls" else "mean"
    reading = Reading(pooling=pooling, window=prompt.window, query=prompt.query, passage=prompt.passage)
    cores = len(os.sched_getaffinity(0))
    return Encoder(weights or files["weights"], files["tokenizer"], threads=threads or cores, reading=reading)


def encode_all(encoder: Encoder, pieces: Sequence[Piece], limit: int = LARGE_BATCH) -> Matrix:
    """Unit vectors (n, width) of windows, run in batches of alike lengths."""
    rows = np.empty((len(pieces), encoder.width), np.float32)
    for batch in batches([len(piece.ids) for piece in pieces], limit):
        rows[batch] = encoder.encode([pieces[at].ids for at in batch])
    return rows


class CachedEmbedder:
    """Satisfies :class:`edge_runtime.knowledge.embedder.Embedder`; what it computed is kept in ``folder``."""

    def __init__(self, folder: Path, name: str = "") -> None:
        self.name = name or ModelsConfig().embedder
        files = Store(Paths.from_environment().models, quota_bytes=2**60).get(self.name).files
        folder.mkdir(parents=True, exist_ok=True)
        self._encoder: Encoder | None = None
        self._identity = f"{self.name}@{files['weights'].name}"
        self.tokenizer = files["tokenizer"]
        self._kept = sqlite3.connect(folder / "vectors.db", isolation_level=None, check_same_thread=False)
        self._kept.execute("PRAGMA journal_mode = WAL")
        self._kept.execute("PRAGMA synchronous = OFF")  # a lost vector is computed again
        self._kept.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, spans TEXT, data BLOB)")

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = bare_encoder(self.name)
        return self._encoder

    def close(self) -> None:
        self._kept.close()

    async def embed(self, texts: list[str], *, pool: bool = True, kind: TextKind = "passage") -> Vectors:
        found = self.windows(texts, kind)
        if pool:
            return Vectors([pooled(rows)[None] for rows, _ in found], [[(0, len(text))] for text in texts])
        return Vectors([rows for rows, _ in found], [spans for _, spans in found])

    def rows(self, texts: Sequence[str], kind: Kind = "passage") -> Matrix:
        """One vector a text (n, width); the windows of a long one are pooled."""
        return np.vstack([pooled(rows) for rows, _ in self.windows(texts, kind)])

    def windows(self, texts: Sequence[str], kind: Kind = "passage") -> list[_Entry]:
        """The vectors of each text's windows and the characters that they read."""
        keys = [blake2b(f"{self._identity}\0{kind}\0{text}".encode(), digest_size=16).digest() for text in texts]
        found = dict(self._load(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        for done, part in enumerate(_parts(missing.items(), _AT_ONCE)):
            if len(missing) > _AT_ONCE:
                print(f"embedding: {done * _AT_ONCE} of {len(missing)} texts", file=sys.stderr, flush=True)
            found.update(self._compute(part, kind))
        return [found[key] for key in keys]

    def _load(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, _Entry]]:
        for part in _parts(keys, 500):
            marks = ",".join("?" * len(part))
            for key, spans, data in self._kept.execute(f"SELECT * FROM vectors WHERE key IN ({marks})", part):
                places = [(start, end) for start, end in json.loads(spans)]
                yield key, (np.frombuffer(data, "<f4").reshape(len(places), -1), places)

    def _compute(self, part: list[tuple[bytes, str]], kind: Kind) -> dict[bytes, _Entry]:
        pieces = [self.encoder.read(text, kind) for _, text in part]
        flat = encode_all(self.encoder, [piece for text in pieces for piece in text])
        ends = np.cumsum([len(text) for text in pieces])
        found = {}
        for (key, _), text, end in zip(part, pieces, ends, strict=True):
            spans = [(piece.window.start, piece.window.end) for piece in text]
            found[key] = (flat[end - len(text) : end].copy(), spans)
        self._kept.execute("BEGIN")
        self._kept.executemany(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
            [(key, json.dumps(spans), rows.astype("<f4").tobytes()) for key, (rows, spans) in found.items()],
        )
        self._kept.execute("COMMIT")
        return found


def _parts(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part

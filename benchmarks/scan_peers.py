"""Peers of the vector scan: each builds and searches in a process of its own, and prints one JSON object.

Run by the peers' Python, which has not the project: standard library, NumPy and the one package. Every peer is tried in
several settings on the first queries; of those that reach the recall, the fastest is measured on all. Times are of the
call of its Python API for one query and ten results, its own cost included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

K = 10
RECALL = 0.99
_TRIED = 60  # queries on which a setting is tried
_WARM = 10


class Usearch:
    """Exact search over a mapped matrix, in three kinds of numbers."""

    settings = tuple({"kind": kind, "threads": threads} for kind in ("f32", "f16", "i8") for threads in (1, 0))

    def build(self, directory: Path, vectors: Any) -> None:
        np.save(directory / "f32.npy", vectors)
        np.save(directory / "f16.npy", vectors.astype(np.float16))
        np.save(directory / "i8.npy", np.rint(vectors * 127).astype(np.int8))

    def open(self, directory: Path) -> None:
        self._directory = directory
        self._kind = ""

    def apply(self, setting: dict[str, Any]) -> None:
        from usearch.index import MetricKind, search

        if setting["kind"] != self._kind:
            self._rows = np.load(self._directory / f"{setting['kind']}.npy", mmap_mode="r")
            self._kind = setting["kind"]
        self._threads, self._search, self._metric = setting["threads"], search, MetricKind.Cos

    def query(self, vector: Any) -> list[int]:
        if self._kind != "f32":
            vector = vector.astype(np.float16) if self._kind == "f16" else np.rint(vector * 127).astype(np.int8)
        found = self._search(self._rows, vector, K, self._metric, exact=True, threads=self._threads)
        return found.keys.tolist()

    def files(self, directory: Path) -> list[Path]:
        return [directory / f"{self._kind}.npy"]


class Faiss:
    """IndexFlatIP, with one thread and with all."""

    settings = ({"threads": 1}, {"threads": 0})

    def build(self, directory: Path, vectors: Any) -> None:
        import faiss

        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(directory / "flat.faiss"))

    def open(self, directory: Path) -> None:
        import faiss

        self._faiss = faiss
        self._all = faiss.omp_get_max_threads()
        self._index = faiss.read_index(str(directory / "flat.faiss"))

    def apply(self, setting: dict[str, Any]) -> None:
        self._faiss.omp_set_num_threads(setting["threads"] or self._all)

    def query(self, vector: Any) -> list[int]:
        return self._index.search(vector[None], K)[1][0].tolist()

    def files(self, directory: Path) -> list[Path]:
        return [directory]


class Lance:
    """Without an index, and with IVF_HNSW_SQ at several breadths, re-scored with the vectors."""

    settings = (
        {"index": False},
        *(
            {"index": True, "nprobes": n, "ef": e, "refine": r}
            for n in (1, 4, 20)
            for e in (50, 150, 400)
            for r in (1, 4)
        ),
    )

    def build(self, directory: Path, vectors: Any) -> None:
        import lancedb
        import pyarrow as pa

        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        numbers = pa.array(np.arange(len(vectors)))
        table = lancedb.connect(str(directory)).create_table(
            "vectors", pa.table({"id": numbers, "vector": rows})
        )  # fmt: skip
        table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", vector_column_name="vector")

    def open(self, directory: Path) -> None:
        import lancedb

        self._table = lancedb.connect(str(directory)).open_table("vectors")

    def apply(self, setting: dict[str, Any]) -> None:
        self._setting = setting

    def query(self, vector: Any) -> list[int]:
        wanted = self._table.search(vector, vector_column_name="vector").distance_type("cosine").select(["id"]).limit(K)
        given = self._setting
        if not given["index"]:
            wanted = wanted.bypass_vector_index()
        else:
            wanted = wanted.nprobes(given["nprobes"]).ef(given["ef"])
            wanted = wanted.refine_factor(given["refine"])
        return wanted.to_arrow()["id"].to_pylist()

    def files(self, directory: Path) -> list[Path]:
        return [directory]


class Chroma:
    """Its HNSW at two degrees and several breadths of search."""

    settings = tuple({"degree": d, "breadth": b} for d in (16, 32) for b in (50, 100, 150, 200, 300, 450, 700))

    def build(self, directory: Path, vectors: Any) -> None:
        client = self._client(directory)
        most = client.get_max_batch_size()
        for degree in (16, 32):
            hnsw = {"space": "cosine", "ef_construction": 200, "max_neighbors": degree, "ef_search": 100}
            collection = client.create_collection(
                f"degree{degree}", configuration={"hnsw": hnsw}, embedding_function=None
            )
            for at in range(0, len(vectors), most):
                part = vectors[at : at + most]
                collection.add(ids=[str(at + place) for place in range(len(part))], embeddings=part)

    def open(self, directory: Path) -> None:
        self._directory = directory

    def apply(self, setting: dict[str, Any]) -> None:
        from chromadb.api.shared_system_client import SharedSystemClient

        name = f"degree{setting['degree']}"
        collection = self._client(self._directory).get_collection(name, embedding_function=None)
        collection.modify(configuration={"hnsw": {"ef_search": setting["breadth"]}})
        # A graph that is in memory keeps the breadth that it was loaded with.
        SharedSystemClient.clear_system_cache()
        self._collection = self._client(self._directory).get_collection(name, embedding_function=None)

    def query(self, vector: Any) -> list[int]:
        found = self._collection.query(query_embeddings=[vector], n_results=K, include=["distances"])
        return [int(name) for name in found["ids"][0]]

    def files(self, directory: Path) -> list[Path]:
        return [directory]

    @staticmethod
    def _client(directory: Path) -> Any:
        import chromadb

        return chromadb.PersistentClient(
            path=str(directory), settings=chromadb.Settings(anonymized_telemetry=False)
        )  # fmt: skip


PEERS = {"usearch": Usearch, "faiss": Faiss, "lancedb": Lance, "chroma": Chroma}


def resident() -> dict[str, int]:
    """Bytes that this process has in memory now: of its own, and of mapped files."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) * 1024
    return {"own": found["RssAnon"], "files": found["RssFile"]}


def recall(found: list[list[int]], truth: Any) -> float:
    """Share of the true ten that were found."""
    return float(np.mean([len(set(row) & set(true)) / K for row, true in zip(found, truth.tolist(), strict=True)]))


def timed(peer: Any, queries: Any) -> tuple[list[float], list[list[int]]]:
    """Seconds and rows of each query, one after the other."""
    for vector in queries[:_WARM]:
        peer.query(vector)
    seconds, found = [], []
    for vector in queries:
        began = time.perf_counter()
        rows = peer.query(vector)
        seconds.append(time.perf_counter() - began)
        found.append(rows)
    return seconds, found


def search(peer: Any, directory: Path, queries: Any, truth: Any) -> dict[str, Any]:
    """The fastest setting that reaches the recall; without one, that with the best recall."""
    before = resident()
    peer.open(directory)
    tried = []
    for setting in peer.settings:
        peer.apply(setting)
        seconds, found = timed(peer, queries[:_TRIED])
        reached = recall(found, truth[:_TRIED])
        tried.append((reached < RECALL, float(np.median(seconds)) if reached >= RECALL else -reached, setting))
        print(f"  {setting}: {np.median(seconds) * 1000:.2f} ms, recall {reached:.4f}", file=sys.stderr)
    best: dict[str, Any] = {}
    for _, _, setting in sorted(tried, key=lambda one: one[:2]):
        peer.apply(setting)
        seconds, found = timed(peer, queries)
        reached = recall(found, truth)
        best = best if best and best["recall"] > reached else _result(setting, seconds, reached)
        if reached >= RECALL:
            break
    after = resident()
    size = sum(
        one.stat().st_blocks * 512
        for path in peer.files(directory)
        for one in (path, *path.glob("**/*"))
        if one.is_file()
    )
    return {**best, "memory": {name: after[name] - before[name] for name in after}, "file_bytes": size}


def _result(setting: dict[str, Any], seconds: list[float], reached: float) -> dict[str, Any]:
    p50, p95 = np.quantile(seconds, [0.5, 0.95]) * 1000
    return {
        "setting": setting,
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "recall": round(reached, 4),
        "queries": len(seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("build", "search"))
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("work", type=Path, help="holds vectors.npy, queries.npy and truth.npy")
    options = parser.parse_args()
    directory = options.work / options.peer
    peer = PEERS[options.peer]()
    if options.step == "search":
        queries, truth = np.load(options.work / "queries.npy"), np.load(options.work / "truth.npy")
        print(json.dumps(search(peer, directory, queries, truth)))
        return 0
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    began = time.perf_counter()
    peer.build(directory, np.load(options.work / "vectors.npy"))
    print(json.dumps({"build_s": round(time.perf_counter() - began, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

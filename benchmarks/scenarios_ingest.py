"""Adding documents: against the embedder alone, beside readers, over and over; and int8 weights against float32."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import corpus, figures, ingest, peers_install
from benchmarks.box import Box
from benchmarks.encoding import bare_encoder, encode_all
from benchmarks.knowledge_stage import WIDTH, Stand, adding, document, write_pages
from benchmarks.stage import Outcome, Row, middle
from edge_runtime.config import Config
from edge_runtime.daemon.children import ModelFiles
from edge_runtime.embedding.child import BATCH_TOKENS
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.records import Matrix

INGEST_BAR = 0.9
GROWTH_BAR = 1.3
READERS_BAR = 2.0
READERS = 2
_PAUSE = 0.05  # seconds between two searches of a reader
_CHURNED = 120  # documents
_CHURNED_PASSAGES = 8  # of each
_MIB = 2**20


def throughput(stand: Stand) -> Outcome:
    """``edge add FOLDER`` of man pages into a fresh box, in turn with an embedder that is sent the very texts that this
    embeds (:mod:`benchmarks.ingest`)."""
    folder = write_pages(stand.scratch / "added", stand.pages[: 20 if stand.quick else 240])
    added, bare = list[float](), list[float]()
    with stand.box() as box, box.stopped():
        models = box.home / "models"
        tokenizer = Path(ModelFiles(Config(), models).embedder().tokenizer)
        texts = asyncio.run(ingest.texts_of(sorted(folder.iterdir()), tokenizer))
        for _ in range(1 if stand.quick else 2):
            bare.append(asyncio.run(ingest.ceiling(texts, models)))
            added.append(ingest.add(folder))
    ratio = min(bare) / min(added)
    note = f" ({min(bare):.1f} of {min(added):.1f} s, {len(texts)} texts)"
    row = Row.least("ingest / the embedder's ceiling", ratio, INGEST_BAR, note)
    return Outcome([row], {"added_s": added, "bare_s": bare, "texts": len(texts)})


def precision(stand: Stand) -> Outcome:
    """int8 weights against float32 ones of the same model, in turn: speed, and whether they find the same."""
    weights = peers_install.float_weights()
    if not weights.exists():
        raise RuntimeError("the float32 weights are not here: make bench-peers")
    encoders = {"int8": bare_encoder(), "float32": bare_encoder(weights=weights)}
    texts = stand.corpus.texts[: 300 if stand.quick else 1500]
    asked = stand.corpus.held_texts[: 100 if stand.quick else 500]
    windows: dict[str, list[float]] = {name: [] for name in encoders}
    single: dict[str, list[float]] = {name: [] for name in encoders}
    rows: dict[str, tuple[Matrix, Matrix]] = {}
    for _ in range(1 if stand.quick else 3):
        for name, encoder in encoders.items():
            pieces = [encoder.read(text)[0] for text in texts]
            began = time.perf_counter()
            found = encode_all(encoder, pieces, BATCH_TOKENS)
            windows[name].append(len(pieces) / (time.perf_counter() - began))
            queries = []
            for text in asked:
                began = time.perf_counter()
                queries.append(encoder.encode([encoder.read(text, "query")[0].ids])[0])
                single[name].append(time.perf_counter() - began)
            rows[name] = (found, np.vstack(queries))
    near = {name: corpus.truth(found, queries, 10) for name, (found, queries) in rows.items()}
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near["int8"], near["float32"], strict=True)])
    first = float((near["int8"][:, 0] == near["float32"][:, 0]).mean())
    cosine = float((rows["int8"][0] * rows["float32"][0]).sum(axis=1).mean())
    speed = {name: middle(values) for name, values in windows.items()}
    times = {name: figures.spread(values) for name, values in single.items()}
    told = [
        Row.stated(
            "int8 / float32, windows a second",
            f"{speed['int8'] / speed['float32']:.2f} ({speed['int8']:.0f} of {speed['float32']:.0f})",
        ),
        Row.stated("  a query, p50", ", ".join(f"{name} {one['p50_ms']:.1f} ms" for name, one in times.items())),
        Row.stated(
            "  agreement",
            f"{overlap:.3f} of the nearest 10 are the same, {first:.3f} of the first; mean cosine {cosine:.4f}",
        ),
    ]
    agreement = {"overlap": float(overlap), "first": first, "cosine": cosine}
    return Outcome(told, {"windows_per_s": windows, "query": times, **agreement})


def churn(stand: Stand) -> Outcome:
    """Rounds in which a drawn half of the documents is removed and added again, beside a fresh index of the same."""
    chance, count = random.Random(corpus.SEED), 10 if stand.quick else 100
    number = _CHURNED * _CHURNED_PASSAGES
    texts, rows = stand.corpus.texts[:number], stand.corpus.rows[:number]
    documents = [
        document(f"{first:05d}.txt", texts[first : first + _CHURNED_PASSAGES], rows[first : first + _CHURNED_PASSAGES])
        for first in range(0, number, _CHURNED_PASSAGES)
    ]
    places = {name: stand.scratch / f"{name}.db" for name in ("fresh", "churned")}
    fresh, churned = (Index.open(place, embedder="bench", width=WIDTH) for place in places.values())
    try:
        ids = {one.name: churned.add(one).id for one in documents}
        for one in documents:
            fresh.add(one)
        for _ in range(count):
            half = chance.sample(documents, len(documents) // 2)
            for one in half:
                churned.remove(ids[one.name])
            for one in half:
                ids[one.name] = churned.add(one).id
    finally:
        fresh.close()
        churned.close()
    sizes = {name: _file_bytes(place) for name, place in places.items()}  # closed: nothing of the log is left
    again = Index.open(places["churned"], embedder="bench", width=WIDTH)
    again.compact()
    again.close()
    sizes["compacted"] = _file_bytes(places["churned"])
    ratio, compacted = sizes["churned"] / sizes["fresh"], sizes["compacted"] / sizes["fresh"]
    note = f" ({sizes['fresh'] / _MIB:.1f} MiB fresh; {compacted:.2f} once compacted)"
    row = Row.most(f"file after {count} rounds of half / fresh", ratio, GROWTH_BAR, "", note)
    return Outcome([row], {"rounds": count, **sizes})


def _file_bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))


def readers(stand: Stand) -> Outcome:
    """Readers search on while ``edge add`` takes in a folder: their times then, over those before."""
    queries = [query.text for query in stand.corpus.mix(200)]
    span = 6.0 if stand.quick else 30.0
    with tempfile.TemporaryDirectory(dir=stand.scratch) as folder, stand.box() as box:
        half = len(stand.pages) // 2
        write_pages(Path(folder, "before"), stand.pages[: 20 if stand.quick else 60])
        if adding(box, Path(folder, "before")).wait():
            raise RuntimeError("edge add failed; the daemon's log says why")
        idle, failed = _read(box, queries, lambda elapsed: elapsed < span)
        newcomer = adding(box, write_pages(Path(folder, "during"), stand.pages[half:]))
        try:
            busy, failed_busy = _read(box, queries, lambda elapsed: elapsed < span and newcomer.poll() is None)
        finally:
            newcomer.terminate()
            newcomer.wait()
    before, during = figures.spread(idle), figures.spread(busy)
    ratio, errors = during["p95_ms"] / before["p95_ms"], failed + failed_busy
    note = (
        f" ({during['p95_ms']:.1f} of {before['p95_ms']:.1f} ms; p50 {during['p50_ms']:.1f} of {before['p50_ms']:.1f})"
    )
    rows = [
        Row.most(f"{READERS} readers beside an ingest / idle, p95", ratio, READERS_BAR, "", note),
        Row.most("  searches that failed", len(errors), 0, "", f" of {len(idle) + len(busy)}"),
    ]
    return Outcome(rows, {"idle": before, "busy": during, "errors": errors[:5]})


def _read(box: Box, queries: Sequence[str], going: Callable[[float], bool]) -> tuple[list[float], list[str]]:
    """The seconds of every search of all readers, and what went wrong."""
    seconds, errors, began = list[float](), list[str](), time.perf_counter()

    def one(start: int) -> None:
        with box.client() as client:
            number = start
            while going(time.perf_counter() - began):
                at = time.perf_counter()
                try:
                    client.search(queries[number % len(queries)], k=10)
                    seconds.append(time.perf_counter() - at)
                except Exception as error:  # noqa: BLE001 - every failure is what is looked for
                    errors.append(f"{type(error).__name__}: {error}")
                number += READERS
                time.sleep(_PAUSE)

    threads = [threading.Thread(target=one, args=(start,)) for start in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, errors

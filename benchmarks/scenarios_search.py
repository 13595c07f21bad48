"""Search on a large index through the socket, and the vector scan alone, beside other engines over the same vectors."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from benchmarks import figures, scan
from benchmarks.knowledge_stage import Stand
from benchmarks.stage import Outcome, Row

SEARCH_BAR = 25.0  # ms, p95
RECALL_BAR = 0.99
HITS = 10
_WARM = 20
_OTHER_SIGMAS = (0.1, 0.3)  # of the noise: closer copies are harder to tell apart
_MIB = 2**20


def search(stand: Stand) -> Outcome:
    """The stated mix of queries, one after the other, query embedding included; then again with the parts told."""
    queries = stand.corpus.mix(80 if stand.quick else 400)
    seconds: dict[str, list[float]] = defaultdict(list)
    parts: dict[str, list[float]] = defaultdict(list)
    scans = set[str]()
    with stand.box("large", stand.fill_large) as box, box.client() as client:
        for text in stand.corpus.held_texts[:_WARM]:
            client.search(text, k=HITS)
        for query in queries:
            began = time.perf_counter()
            client.search(query.text, k=HITS)
            seconds[query.kind].append(time.perf_counter() - began)
        for query in queries[: len(queries) // 2]:
            report = client.search(f"{query.text} {len(parts['total'])}", k=HITS, explain=True).report
            for name, value in report.timings_ms.items() if report else ():
                parts[name].append(value / 1000)
            scans.add(report.scan if report else "")
        told = client.index_report()
        memory = box.resident_bytes()
    whole = figures.spread([value for values in seconds.values() for value in values])
    kinds = {kind: figures.spread(values) for kind, values in seconds.items()}
    split = {name: figures.spread(values) for name, values in parts.items()}
    rows = [
        Row.most(
            f"search, {told.windows:,} vectors and {told.chunks:,} passages, p95",
            whole["p95_ms"],
            SEARCH_BAR,
            " ms",
            f" (p50 {whole['p50_ms']:.1f}; scan: {', '.join(sorted(scans))})",
        ),
        Row.stated("  p95 by kind of query", ", ".join(f"{kind} {one['p95_ms']:.1f}" for kind, one in kinds.items())),
        Row.stated("  p95 of its parts", ", ".join(f"{name} {one['p95_ms']:.1f}" for name, one in split.items())),
        Row.stated(
            "  files and memory",
            f"index {told.file_bytes / _MIB:.0f} MiB, scan {told.scan_bytes / _MIB:.0f} MiB; "
            + ", ".join(f"{name} {size / _MIB:.0f} MiB" for name, size in memory.items()),
        ),
    ]
    return Outcome(rows, {"all": whole, "kinds": kinds, "parts": split, "memory": memory, "scans": sorted(scans)})


def scan_large(stand: Stand) -> Outcome:
    """The coarse copy at the size of the large index."""
    outcome = _scan(stand, stand.large)
    if not stand.quick:
        for sigma in _OTHER_SIGMAS:
            work = scan.prepare(stand.cache, stand.large, sigma=sigma, quick=stand.quick)
            told = scan.measure("ours", work)
            outcome.figures[f"sigma {sigma}"] = told
            outcome.rows.append(Row.stated(f"  with noise of length {sigma}", _told(told)))
    return outcome


def scan_million(stand: Stand) -> Outcome:
    """The coarse copy at 1,000,000 vectors."""
    return _scan(stand, 100_000 if stand.quick else 1_000_000)


def peers(stand: Stand) -> Outcome:
    """Other engines over the same vectors, each in a process of its own; ours first and last, the slower one counts."""
    work = scan.prepare(stand.cache, stand.large, quick=stand.quick)
    names = scan.installed()
    if not names:
        raise RuntimeError("no peer is installed: make bench-peers")
    found = {"ours": scan.measure("ours", work), **{name: scan.measure(name, work) for name in names}}
    found["again"] = scan.measure("ours", work)
    ours = max(found["ours"]["p50_ms"], found["again"]["p50_ms"])
    rows = []
    for name in names:
        told = found[name]
        if "failed" in told or told["recall"] < RECALL_BAR:
            rows.append(Row.stated(f"scan / {name}", f"{told.get('failed', 'does not reach the recall')}: {told}"))
            continue
        ratio = ours / told["p50_ms"]
        note = f"{ratio:.3f} ({ours:.2f} of {told['p50_ms']:.2f} ms; {_told(told)})"
        rows.append(Row(f"scan / {name}, p50", "< 1", note, ratio < 1))
    return Outcome(rows, found)


def _scan(stand: Stand, count: int) -> Outcome:
    told = scan.measure("ours", scan.prepare(stand.cache, count, quick=stand.quick))
    if "failed" in told:
        raise RuntimeError(told["failed"])
    name, bar = f"vector scan, {count:,} vectors", scan.BARS.get(count, scan.BARS[100_000])
    rows = [
        Row.most(f"{name}, p95", told["p95_ms"], bar, " ms", f" ({_told(told)})"),
        Row.least(f"{name}, recall@{HITS}", told["recall"], RECALL_BAR),
    ]
    return Outcome(rows, {str(count): told})


def _told(told: dict[str, Any]) -> str:
    if "failed" in told:
        return str(told["failed"])
    held = ", ".join(f"{name} {size / _MIB:.0f} MiB" for name, size in told["memory"].items())
    return (
        f"p50 {told['p50_ms']:.2f}, p95 {told['p95_ms']:.2f} ms, recall {told['recall']:.4f}, "
        f"file {told['file_bytes'] / _MIB:.0f} MiB, memory {held}"
    )

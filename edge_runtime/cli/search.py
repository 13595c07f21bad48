"""``edge search``: the passages nearest to a query, why they are, and how both sides are weighed against each other."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from edge_runtime.cli.ask import asking
from edge_runtime.cli.output import Wrapped, clean_line, paint, place, put, put_json, say, width
from edge_runtime.errors import RequestError
from edge_runtime.knowledge_protocol import (
    Filter,
    Fusion,
    Hit,
    HitParts,
    LabelledQuery,
    SearchMode,
    SearchReport,
    TuneReply,
)
from edge_runtime.protocol import DEFAULT_COLLECTION

_INDENT = 7  # below a hit's score
_LEAST_LABELLED, _MOST_LABELLED = 5, 2000


@click.command(short_help="Show the passages nearest to a query.")
@click.argument("query", required=False)
@click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="The collection to search.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "lexical", "dense"]),
    default="hybrid",
    show_default=True,
    help="By words, by meaning, or both.",
)
@click.option("-k", "count", type=click.IntRange(1, 100), default=5, show_default=True, help="How many passages.")
@click.option("--document", "documents", multiple=True, help="Only in this document (name or id); any of several.")
@click.option("--tag", "tags", multiple=True, help="Only in documents with this tag; all of several.")
@click.option("--since", help="Only in documents of this day or later (YYYY-MM-DD).")
@click.option("--until", help="Only in documents of this day or earlier.")
@click.option(
    "--fusion",
    type=click.Choice(["convex", "rrf"]),
    default="convex",
    show_default=True,
    help="Join both rankings by score, or by rank alone.",
)
@click.option("--weight", type=click.FloatRange(0, 1), help="Share of meaning; without, it follows the query.")
@click.option("--rerank", type=click.IntRange(0, 10_000), default=0, help="Milliseconds for the reranker, if any.")
@click.option("--explain", is_flag=True, help="What each score was made of, and how the search went.")
@click.option(
    "--tune",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Fit the weights from labelled queries, one JSON object a line.",
)
@click.option("--dry-run", is_flag=True, help="With --tune: measure, and keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="The hits as JSON.")
def search(
    *,
    query: str | None,
    collection: str,
    mode: SearchMode,
    count: int,
    documents: tuple[str, ...],
    tags: tuple[str, ...],
    since: str | None,
    until: str | None,
    fusion: Fusion,
    weight: float | None,
    rerank: int,
    explain: bool,
    tune: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show the passages nearest to a query, the best first.

    A labelled query names the documents that should be found, or texts that the right passages hold.

    \b
    Example:
      edge search "gland bolts" -k 3
      edge search E17 --mode lexical --json
      edge search "why does it leak?" --explain
      echo '{"query": "gland bolts", "documents": ["pump.md"]}' >> labelled.jsonl
      edge search --tune labelled.jsonl
    """
    if tune is not None:
        if query is not None:
            raise click.UsageError("--tune takes its queries from the file: leave the query out")
        _tune(tune, collection, keep=not dry_run, as_json=as_json)
        return
    if query is None:
        raise click.UsageError("what is to be searched for? give a query")
    narrowed = bool(documents or tags or since or until)
    wanted = Filter(documents=list(documents), tags=list(tags), since=since, until=until) if narrowed else None
    with asking(collection) as box:
        reply = box.search(
            query,
            collection=collection,
            mode=mode,
            k=count,
            filter=wanted,
            fusion=fusion,
            weight=weight,
            rerank_ms=rerank,
            explain=explain,
        )
    if as_json:
        put_json(reply)
        return
    if not reply.hits:
        say("nothing found; which documents are there: edge docs")
    for hit in reply.hits:
        _show(hit)
    if isinstance(reply.report, SearchReport):
        _show_report(reply.report)


def _show(hit: Hit) -> None:
    put(f"{hit.score:.3f}  {paint(clean_line(hit.document), sys.stdout, bold=True)}, {place(hit.locator)}")
    if isinstance(hit.parts, HitParts):
        for line in _parts(hit.parts):
            _write(line)
    _write(hit.text)


def _parts(parts: HitParts) -> list[str]:
    """``meaning 0.612 (place 1, sentence 0.702), words 0.410 (place 3, BM25 8.21)`` and what the reranker said."""
    sentence = [] if parts.sentence is None else [f"sentence {parts.sentence:.3f}"]
    bm25 = [] if parts.bm25 is None else [f"BM25 {parts.bm25:.2f}"]
    meaning = "" if parts.cosine is None else f"{parts.cosine:.3f} "
    words = "not found" if parts.bm25 is None else f"{parts.lexical:.3f} "
    if parts.bm25 is not None:
        words += f"({', '.join([_place(parts.lexical_rank), *bm25])})"
    told = [f"meaning {meaning}({', '.join([_place(parts.dense_rank), *sentence])}), words {words}"]
    return told if parts.rerank is None else [*told, f"reranker {parts.rerank:.3f}"]


def _place(rank: int | None) -> str:
    return "not found" if rank is None else f"place {rank}"


def _show_report(report: SearchReport) -> None:
    put()
    rows = [
        ("words", report.expression or "none"),
        ("left out", ", ".join(report.dropped) or "none"),
        ("weight", report.reason),
        ("scan", report.scan),
        ("reranked", str(report.reranked)),
        ("took", ", ".join(f"{name} {value:.1f}" for name, value in report.timings_ms.items()) + " ms"),
    ]
    for name, text in rows:
        lines = Wrapped(width())
        lines.write(f"{name}: {text}")
        lines.end()


def _write(text: str) -> None:
    lines = Wrapped(width(), indent=_INDENT)
    lines.write(text)
    lines.end()


def _tune(path: Path, collection: str, *, keep: bool, as_json: bool) -> None:
    queries = read_labelled(path)
    with asking(collection) as box:
        reply = box.tune_search(queries, collection=collection, keep=keep)
    if as_json:
        put_json(reply)
        return
    _show_tuning(reply, collection, keep=keep)


def read_labelled(path: Path) -> list[LabelledQuery]:
    """One query a line.

    Raises:
        RequestError: a line is none, or there are too few or too many; names the line.
    """
    queries = []
    decoder = msgspec.json.Decoder(LabelledQuery)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}; check its name and its permissions") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            queries.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RequestError(
                f'line {number} of {path} is no labelled query: {error}; write {{"query": ..., "documents": [...]}}'
            ) from error
        if not queries[-1].documents and not queries[-1].texts:
            raise RequestError(f"line {number} of {path} says nothing of what should be found; add documents or texts")
    if not _LEAST_LABELLED <= len(queries) <= _MOST_LABELLED:
        raise RequestError(
            f"{path} holds {len(queries)} labelled queries; give {_LEAST_LABELLED} to {_MOST_LABELLED}, one a line"
        )
    return queries


def _show_tuning(reply: TuneReply, collection: str, *, keep: bool) -> None:
    put(f"nDCG@10 over {reply.queries} queries of {clean_line(collection)}")
    for name, value in (
        ("words alone", reply.lexical),
        ("meaning alone", reply.dense),
        ("both, as it is", reply.before),
        ("both, fitted", reply.after),
    ):
        put(f"  {name:<15} {value:.3f}")
    say("fitted: each query measured with weights that were fitted on the others")
    put("  " + ", ".join(f"{name.rpartition('.')[2]} {value:+.2f}" for name, value in reply.weights.items()))
    if reply.kept:
        say("these weights are used from now on")
    else:
        say("nothing was changed: " + ("they are no better than what there is" if keep else "as asked"))

"""``edge search``: hits, their parts at a terminal's width, and fitting the weights from a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_runtime import knowledge_protocol
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.cli.golden import compare
from tests.edge_runtime.scripted import error_reply, json_reply

PARTS = knowledge_protocol.HitParts(
    cosine=0.61234, bm25=8.214, lexical=0.41, dense_rank=1, lexical_rank=3, sentence=0.702, rerank=0.93
)
UNHEARD = knowledge_protocol.HitParts(cosine=0.31, bm25=None, lexical=0.0, dense_rank=7, lexical_rank=None)
HITS = [
    knowledge_protocol.Hit(
        document="pump.md",
        document_id="d1",
        locator=samples.CITATION.locator,
        score=score,
        text="E17: low suction pressure at the pump.",
        parts=parts,
    )
    for score, parts in ((0.93, PARTS), (0.31, UNHEARD))
]
REPORT = knowledge_protocol.SearchReport(
    expression='("E17") AND ("E17" OR "pump" OR "pump")',
    weight=0.35,
    reason="Meaning weighs 0.35, by default 0.60: for words speaks the code E17.",
    dropped=["what", "does"],
    scan="coarse",
    timings_ms={"embed": 3.1, "terms": 0.4, "scan": 2.2, "words": 4.0, "total": 11.9},
    reranked=2,
)
EXPLAINED = {"POST /edge/v1/search": json_reply(knowledge_protocol.SearchReply(hits=HITS, report=REPORT))}
TUNED = knowledge_protocol.TuneReply(
    before=0.71,
    after=0.745,
    lexical=0.68,
    dense=0.7,
    weights={"search.default.base": 0.45, "search.default.code": -0.3},
    kept=True,
    queries=6,
)
TUNING = {"POST /edge/v1/search/tune": json_reply(TUNED)}
LINE = '{"query": "gland bolts", "documents": ["pump.md"]}\n'


def test_an_explained_search_fits_a_terminal_of_80_columns(shell: Shell) -> None:
    with shell.daemon(EXPLAINED) as daemon:
        done = shell.edge("search", "what does E17 mean", "--explain")
    assert daemon.asked[-1].json["explain"] is True
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(len(line) <= 80 for line in lines), max(lines, key=len)
    assert "       meaning 0.612 (place 1, sentence 0.702)," in lines[1]
    assert "words not found" in done.out
    assert "left out: what, does" in lines
    assert any(line.startswith("weight: Meaning weighs 0.35") for line in lines)


def test_json_of_an_explained_search_holds_the_parts_and_the_report(shell: Shell) -> None:
    with shell.daemon(EXPLAINED):
        done = shell.edge("search", "E17", "--explain", "--json")
    compare("search_explain", done.json)


def test_every_switch_reaches_the_daemon(shell: Shell) -> None:
    with shell.daemon() as daemon:
        switches = ["--mode", "hybrid", "--fusion", "rrf", "--weight", "0.25", "--rerank", "200", "-k", "3"]
        narrowed = ["--document", "a.md", "--document", "b.md", "--tag", "pumps", "--since", "2026-01-01"]
        assert shell.edge("search", "E17", *switches, *narrowed).code == 0
    body = daemon.asked[-1].json
    assert (body["fusion"], body["weight"], body["rerank_ms"], body["k"]) == ("rrf", 0.25, 200, 3)
    assert body["filter"] == {"documents": ["a.md", "b.md"], "tags": ["pumps"], "since": "2026-01-01", "until": None}


def test_without_a_filter_none_is_sent(shell: Shell) -> None:
    with shell.daemon() as daemon:
        shell.edge("search", "E17")
    assert daemon.asked[-1].json["filter"] is None


def test_tuning_sends_the_labelled_queries_and_says_what_it_brought(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "labelled.jsonl").write_text(f"{LINE * 5}\n{LINE}", "utf-8")
    with shell.daemon(TUNING) as daemon:
        done = shell.edge("search", "--tune", tmp_path / "labelled.jsonl", "--collection", "pumps")
    assert done.code == 0, done.err
    assert daemon.asked[-1].json["collection"] == "pumps"
    assert len(daemon.asked[-1].json["queries"]) == 6
    assert "both, fitted    0.745" in done.out
    assert "base +0.45, code -0.30" in done.out
    assert "these weights are used from now on" in done.err


def test_json_of_tuning_is_what_was_agreed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "labelled.jsonl").write_text(LINE * 6, "utf-8")
    with shell.daemon(TUNING) as daemon:
        done = shell.edge("search", "--tune", tmp_path / "labelled.jsonl", "--dry-run", "--json")
    assert daemon.asked[-1].json["keep"] is False
    compare("search_tune", done.json)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINE * 3, "3 labelled queries"),
        (LINE * 5 + "{", "line 6"),
        (LINE * 5 + '{"query": "x"}', "line 6"),
        (LINE * 5 + '{"query": "x", "colour": 1}', "colour"),
        (LINE * 2001, "2001 labelled queries"),
        ("", "0 labelled queries"),
    ],
)
def test_a_file_that_cannot_be_tuned_from_is_refused_by_its_line(
    shell: Shell, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "labelled.jsonl").write_text(text, "utf-8")
    with shell.daemon(TUNING) as daemon:
        done = shell.edge("search", "--tune", tmp_path / "labelled.jsonl")
    assert (done.code, daemon.asked) == (2, [])
    assert said in done.err


@pytest.mark.parametrize("arguments", [["search"], ["search", "x", "--tune", "pyproject.toml"]])
def test_a_query_or_a_file_and_not_both(shell: Shell, arguments: list[str]) -> None:
    done = shell.edge(*arguments, cwd=Path(__file__).parents[3])
    assert (done.code, "query" in done.err) == (2, True)


def test_weights_that_were_no_better_are_said_to_be_unused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "labelled.jsonl").write_text(LINE * 6, "utf-8")
    worse = json_reply(msgspec.structs.replace(TUNED, after=0.7, kept=False))
    with shell.daemon({"POST /edge/v1/search/tune": worse}):
        done = shell.edge("search", "--tune", tmp_path / "labelled.jsonl")
    assert "they are no better than what there is" in done.err


def test_a_refusal_of_the_daemon_is_said(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "labelled.jsonl").write_text(LINE * 6, "utf-8")
    refused = error_reply(403, "permission_denied", "only the box's owner may do this; ask them")
    with shell.daemon({"POST /edge/v1/search/tune": refused}):
        done = shell.edge("search", "--tune", tmp_path / "labelled.jsonl")
    assert (done.code, "only the box's owner" in done.err) == (4, True)

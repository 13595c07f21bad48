"""``edge eval`` before a scripted daemon: what it asks, what it makes of the replies, and how it says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_runtime import knowledge_protocol
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.cli.golden import compare
from tests.edge_runtime.scripted import Asked, Script, error_reply, json_reply

QUESTIONS = (
    {"question": "What does E17 mean?", "documents": ["pump.md"], "answers": ["low suction pressure"]},
    {"question": "What was blocked?", "documents": ["d2"]},
    {"question": "Who won?", "answerable": False},
)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, QUESTIONS)), "utf-8")
    return path


def replies() -> dict[str, Any]:
    def find(asked: Asked) -> Script:
        first, second = (
            knowledge_protocol.Hit(
                document=one.document, document_id=one.document_id, locator=one.locator, score=0.7, text=one.quote
            )
            for one in (samples.CITATION, samples.SECOND)
        )
        by_words = asked.json["mode"] == "lexical"
        return json_reply(knowledge_protocol.SearchReply(hits=[second, first] if by_words else [first, second]))

    def answer(asked: Asked) -> Script:
        return json_reply(samples.DECLINED if "won" in asked.json["question"] else samples.ANSWER)

    def passage(one: knowledge_protocol.Citation, text: str) -> Script:
        start, end = one.locator.start, one.locator.end
        found = knowledge_protocol.Passage(
            document=one.document, document_id=one.document_id, start=start, end=end, text=text
        )
        return json_reply(found)

    other = msgspec.structs.replace(samples.DOCUMENT, id="d2", name="log [2026].pdf")
    return {
        "GET /edge/v1/documents": json_reply(knowledge_protocol.DocumentList(documents=[samples.DOCUMENT, other])),
        "POST /edge/v1/search": find,
        "POST /edge/v1/ask": answer,
        "GET /edge/v1/documents/d1/text": passage(samples.CITATION, samples.CITATION.quote),
        "GET /edge/v1/documents/d2/text": passage(samples.SECOND, "Something else stands there."),
    }


def masked(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Without paths and times."""
    timed = [*value["search"].values(), *([value["answers"]] if value["answers"] else [])]
    for one in timed:
        assert 0 < one["p50_ms"] <= one["p95_ms"]
        one["p50_ms"] = one["p95_ms"] = "MS"
    return {**value, "file": value["file"].replace(str(folder), "FOLDER")}


def test_json_of_an_evaluation_holds_every_measure_of_search_and_answers(shell: Shell, questions: Path) -> None:
    with shell.daemon(replies()) as daemon:
        done = shell.edge("eval", questions, "--mode", "all", "--ask", "--json")
    assert done.code == 0, done.err
    compare("eval", masked(done.json, questions.parent))
    searched = [one.json for one in daemon.asked if one.target == "/edge/v1/search"]
    assert {(one["mode"], one["k"]) for one in searched} == {("hybrid", 50), ("dense", 50), ("lexical", 50)}
    assert {one.json["mode"] for one in daemon.asked if one.target == "/edge/v1/ask"} == {"auto"}


def test_without_ask_no_question_is_asked_and_no_answer_told(shell: Shell, questions: Path) -> None:
    with shell.daemon(replies()) as daemon:
        done = shell.edge("eval", questions, "--json", "-k", "1", "--collection", "manuals")
    assert done.code == 0, done.err
    assert done.json["answers"] is None
    assert set(done.json["search"]) == {"hybrid"}
    assert done.json["search"]["hybrid"]["recall"]["value"] == 0.5
    assert not [one for one in daemon.asked if one.target == "/edge/v1/ask"]
    assert {one.json["collection"] for one in daemon.asked if one.method == "POST"} == {"manuals"}


def test_extract_asks_for_quotes_alone(shell: Shell, questions: Path) -> None:
    with shell.daemon(replies()) as daemon:
        done = shell.edge("eval", questions, "--extract")
    assert done.code == 0, done.err
    assert {one.json["mode"] for one in daemon.asked if one.target == "/edge/v1/ask"} == {"extract"}


def test_the_table_fits_a_terminal_of_80_columns(shell: Shell, questions: Path) -> None:
    with shell.daemon(replies()):
        done = shell.edge("eval", questions, "--mode", "all", "--ask")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "3 questions, 2 of them with what search should find"
    assert "RECALL@10" in lines[2]
    assert [line.split()[0] for line in lines[3:6]] == ["hybrid", "dense", "lexical"]
    (verbatim,) = [line for line in lines if line.startswith("quotes")]
    assert verbatim.split()[4] == "0.500"
    assert "search, lexical: 100 %" in done.err


def test_documents_that_are_not_there_are_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "misspelt.jsonl"
    path.write_text(json.dumps({"question": "a", "documents": ["pumb.md", "pump.md"]}), "utf-8")
    with shell.daemon(replies()):
        done = shell.edge("eval", path, "--json")
    assert done.code == 0
    assert done.json["missing"] == ["pumb.md"]
    assert "1 documents that misspelt.jsonl names are not there: pumb.md" in done.err


def test_a_quote_of_a_document_that_was_removed_meanwhile_is_not_verbatim(shell: Shell, questions: Path) -> None:
    gone = error_reply(404, "not_found", "no document has the id d1")
    with shell.daemon({**replies(), "GET /edge/v1/documents/d1/text": gone}):
        done = shell.edge("eval", questions, "--ask", "--json")
    assert done.code == 0, done.err
    assert done.json["answers"]["verbatim"]["value"] == 0.0


@pytest.mark.parametrize(("text", "said"), [("", "holds no question"), ("{}", "line 1"), ("what?", "line 1")])
def test_a_file_without_questions_is_refused_before_anything_is_asked(
    shell: Shell, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(text, "utf-8")
    with shell.daemon() as daemon:
        done = shell.edge("eval", path, "--json")
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not daemon.asked


def test_an_unknown_collection_fails_with_those_that_there_are(shell: Shell, questions: Path) -> None:
    missing = error_reply(404, "not_found", "no collection is named manuals")
    with shell.daemon({**replies(), "POST /edge/v1/search": missing}):
        done = shell.edge("eval", questions, "--collection", "manuals", "--json")
    assert done.code == 1
    assert "collections that hold documents: default" in done.err


def test_without_a_daemon_it_says_so(shell: Shell, questions: Path) -> None:
    assert shell.edge("eval", questions).code == 3

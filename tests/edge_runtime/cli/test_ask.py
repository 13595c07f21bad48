"""``edge ask``: how lists look, and what narrows a question."""

from __future__ import annotations

from edge_runtime import knowledge_protocol
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.scripted import stream_reply


def test_rows_and_entries_of_a_list_stand_on_lines_of_their_own(shell: Shell) -> None:
    said = ["Two alarms stop it.", "E14: Winding too hot: stop", "E17: Low pressure: stop", "2026-02-11 It stopped."]
    events = [
        ("sources", knowledge_protocol.Sources(id="a", citations=[samples.CITATION])),
        *(("sentence", knowledge_protocol.Sentence(text=text, citations=[0])) for text in said),
        ("done", samples.ANSWER),
    ]
    with shell.daemon({"POST /edge/v1/ask": stream_reply(events)}):
        done = shell.edge("ask", "Which alarms stop it?")
    assert done.out.splitlines()[:4] == [f"{text} [1]" for text in said]


def test_what_narrows_a_question_and_how_it_is_read_goes_to_the_daemon(shell: Shell) -> None:
    options = [
        "--document",
        "a.md",
        "--document",
        "b.md",
        "--tag",
        "pumps",
        "--since",
        "2026-01-01",
        "--until",
        "2026-06-30",
    ]
    with shell.daemon() as daemon:
        assert shell.edge("ask", "why?", "--assembly", "refine", *options, "--json").code == 0
        assert shell.edge("ask", "why?", "--json").code == 0
    narrowed, plain = (one.json for one in daemon.asked)
    assert narrowed["assembly"] == "refine"
    assert narrowed["filter"] == {
        "documents": ["a.md", "b.md"],
        "tags": ["pumps"],
        "since": "2026-01-01",
        "until": "2026-06-30",
    }
    assert (plain["assembly"], plain["filter"]) == ("auto", None)

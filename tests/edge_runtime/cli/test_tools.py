"""Programs that ``edge`` runs as processes of their own, and how their words reach the person."""

from __future__ import annotations

import sys

import pytest

from edge_runtime.cli import tools
from edge_runtime.cli.tune import rows_of


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_progress_and_notes_are_shown_and_other_events_returned(capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        '{"event": "progress", "file": "weights", "done": 50, "total": 100}',
        '{"event": "note", "text": "the hub \\u001b[31mcannot be reached"}',
        "not JSON at all",
        '{"event": "table", "rows": []}',
    ]
    assert tools.run_lines(program(f"print({chr(10).join(lines)!r})")) == [{"event": "table", "rows": []}]
    shown = capfd.readouterr().err
    assert "weights: 50 %" in shown
    assert "the hub \\x1b[31mcannot be reached" in shown
    assert "not JSON at all" in shown


def test_a_program_that_fails_is_an_error_in_its_own_words() -> None:
    text = 'print(\'{"event": "error", "message": "no source can be reached; plug in the cable"}\'); exit(1)'
    with pytest.raises(tools.ToolError, match="plug in the cable"):
        tools.run_lines(program(text))


def test_a_program_that_dies_without_a_word_is_an_error_with_its_last_lines() -> None:
    with pytest.raises(tools.ToolError, match="boom"):
        tools.run_lines(program("raise SystemExit('boom')"))


def test_a_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(tools.ToolError, match="edge-nothing is not installed"):
        tools.beside_python("edge-nothing")


def test_the_table_of_a_tuning_shows_a_dash_for_what_was_not_measured() -> None:
    speed = {"prefill": 331.4, "decode": 98.0, "decode_8": 223.0}
    source = {"format": "Q4_1", "source": True, "verdict": "allowed", "reason": "slower", "size": 98_362_432}
    lost = {"mean_kl": 0.34, "same_top": 0.68, "perplexity_change": 0.3, "tokens": 4000, "origin": "recorded"}
    refused = {"format": "Q4_0", "source": False, "verdict": "refused", "reason": "loses too much", "size": None}
    rows = rows_of({"rows": [{**source, "speed": speed, "lost": None}, {**refused, "speed": None, "lost": lost}]})
    assert rows[0] == ("Q4_1 (source)", "98", "331", "98", "223", "-", "-", "-", "allowed: slower")
    assert rows[1] == ("Q4_0", "-", "-", "-", "-", "0.3400", "0.680", "+30.0%", "refused: loses too much")

"""Where a call begins in free text."""

from __future__ import annotations

import pytest

from edge_runtime.engine.watching import Watch

BARE = b'```json\n{\n  "name": "pump",\n  "arguments":'


def _feed(*pieces: bytes) -> list[str | None]:
    watch = Watch(["pump"])
    return [watch.feed(piece) for piece in pieces]


def test_the_mark_begins_a_call_anywhere_and_across_pieces() -> None:
    assert _feed(b"Let me see. <tool", b"_call>") == [None, ""]
    assert _feed(b"x" * 999, b"<tool_call>") == [None, ""]
    assert _feed(b"<tool_call") == [None]


@pytest.mark.parametrize(
    "text",
    [BARE, BARE.removeprefix(b"```json\n"), b'``` {"name":"pump","arguments":', b'\n{ "name" : "pump" , "arguments":'],
)
def test_json_that_names_a_function_at_the_beginning_is_a_call_without_marks(text: bytes) -> None:
    assert _feed(*(text[at : at + 1] for at in range(len(text))))[-1] == "pump"


@pytest.mark.parametrize(
    "text", [b"Yes: " + BARE, BARE.replace(b"pump", b"Ann"), BARE.replace(b"arguments", b"age"), b" " * 300 + BARE]
)
def test_other_json_is_text(text: bytes) -> None:
    assert not any(_feed(*(text[at : at + 1] for at in range(len(text)))))


@pytest.mark.parametrize(
    ("before", "piece", "over"),
    [
        (b"<tool", b"_call>", False),
        (b"<tool", b"_call>\n", True),
        (b"", b"<tool_call>{", True),
        (b"<tool", b"box>{", False),
        (BARE[:-1], b":", False),
        (BARE[:-1], b": {", True),
        (BARE[:-1].replace(b"pump", b"Ann"), b": {", False),
    ],
)
def test_a_call_does_not_begin_inside_a_piece(before: bytes, piece: bytes, *, over: bool) -> None:
    watch = Watch(["pump"])
    watch.feed(before)
    assert watch.straddles(piece) == over

"""The reader of server-sent events, against the standard's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import TooLargeError
from edge_runtime.sse import MAX_EVENT, EventLines, ServerEvent

# No CR or LF inside a line; NUL and everything else may stand there.
LINE = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]))
END = st.sampled_from(["\n", "\r", "\r\n"])


def read(*pieces: bytes) -> list[ServerEvent]:
    lines = EventLines()
    return [event for piece in pieces for event in lines.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n", ["first", "second", " third"]),
        (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        (b"data:test\n\ndata: test\n\n", ["test", "test"]),
        (b"\xef\xbb\xbfevent: done\ndata: {}\n\n", [("done", "{}")]),
        (b"event: done\n\ndata: x\n\n", [("message", "x")]),
        (b"retry: 10\ndata: x\n\n", ["x"]),
        (b"data: cut off by the end\n", []),
    ],
)
def test_streams_of_the_standard_give_its_events(stream: bytes, expected: list[tuple[str, str] | str]) -> None:
    events = [ServerEvent("message", item) if isinstance(item, str) else ServerEvent(*item) for item in expected]
    assert read(stream) == events


@given(st.lists(st.tuples(LINE, st.lists(LINE, min_size=1)), max_size=5), END, st.data())
def test_every_cut_of_a_stream_gives_the_same_events(
    events: list[tuple[str, list[str]]], end: str, data: st.DataObject
) -> None:
    text = "".join(
        f"event: {name}{end}" + "".join(f"data: {line}{end}" for line in lines) + end for name, lines in events
    )
    stream = text.encode() + b"\n"  # what may follow a last lone CR
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == [ServerEvent(name or "message", "\n".join(lines)) for name, lines in events]


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(TooLargeError):
        read(b"data: " + b"x" * MAX_EVENT)

"""What requests wait for, in a real child: others write on meanwhile; cancels, failures, ends and purges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.engine import structure
from edge_runtime.engine.messages import (
    Attach,
    Attached,
    Cancel,
    Detach,
    Done,
    Failed,
    Load,
    Params,
    Purge,
    Purged,
    Score,
    Stop,
    Submit,
    Token,
    Up,
)
from edge_runtime.engine.structure import Document
from tests.edge_runtime import adapter_files as files
from tests.edge_runtime.engine.children import PROMPT, Child, text

Start = Callable[..., Child]
FORM = structure.encode(
    Document(
        schema={
            "type": "object",
            "properties": {"warm": {"type": "boolean"}},
            "required": ["warm"],
            "additionalProperties": False,
        }
    )
)


@pytest.fixture
def fresh(start: Start, small_writer: Path) -> Callable[..., Child]:
    def make(*read: Path) -> Child:
        child = start(*read)
        child.send(Load(path=str(small_writer), name="small", context=1024, threads=1))
        child.receive()
        return child

    return make


def _structured(name: str, *, deterministic: bool = False) -> Submit:
    return Submit(
        id=name,
        prompt=PROMPT,
        domain="uid:1",
        params=Params(max_tokens=30),
        structure=FORM,
        deterministic=deterministic,
    )


def _stream(name: str, count: int) -> Submit:
    return Submit(id=name, prompt="One, two,", domain="uid:1", params=Params(max_tokens=count, ignore_eos=True))


def _ends(child: Child, names: set[str]) -> tuple[list[Up], dict[str, Up]]:
    """All that came until those ended, and how."""
    seen: list[Up] = []
    ends: dict[str, Up] = {}
    while names - set(ends):
        message = child.receive()
        assert message is not None
        seen.append(message)
        if isinstance(message, Done | Failed):
            ends[message.id] = message
    return seen, ends


def _text(seen: list[Up], name: str) -> str:
    return text([message for message in seen if isinstance(message, Token) and message.id == name])


def test_a_stream_writes_on_while_the_first_structured_request_waits(fresh: Start) -> None:
    child = fresh()
    child.send(_stream("s", 400))
    child.until(Token, "s")
    child.send(_structured("1"))
    seen = child.until(Token, "1")
    # Some were under way when the request was sent; making the table takes many steps.
    assert sum(isinstance(message, Token) and message.id == "s" for message in seen) > 5
    child.send(Cancel(id="s"))
    rest, _ = _ends(child, {"1", "s"})
    assert set(json.loads(_text(seen + rest, "1"))) == {"warm"}


def test_all_that_wait_for_the_table_are_answered(fresh: Start) -> None:
    child = fresh()
    names = [str(number) for number in range(5)]
    child.send(*(_structured(name) for name in names), _structured("d", deterministic=True))
    seen, ends = _ends(child, {*names, "d"})
    for name in (*names, "d"):
        assert isinstance(ends[name], Done)
        assert set(json.loads(_text(seen, name))) == {"warm"}
    assert child.close() == 0


def test_one_that_waits_can_be_cancelled_and_the_next_is_answered(fresh: Start) -> None:
    child = fresh()
    child.send(_structured("1"), _structured("2"), Cancel(id="1"))
    seen, ends = _ends(child, {"1", "2"})
    first = ends["1"]
    assert isinstance(first, Done)
    assert (first.reason, first.completion_tokens) == ("cancelled", 0)
    assert not _text(seen, "1")
    assert set(json.loads(_text(seen, "2"))) == {"warm"}
    assert child.close() == 0


@pytest.mark.parametrize("stop", [True, False])
def test_an_engine_that_ends_while_the_table_is_made_ends_well(fresh: Start, stop: bool) -> None:
    child = fresh()
    child.send(_structured("1"), *([Stop()] if stop else []))
    assert child.close() == 0


def test_where_the_library_is_broken_structured_requests_fail_and_others_go_on(
    fresh: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llguidance.py").write_text("raise ImportError('half installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = fresh(tmp_path)
    for _ in range(2):
        child.send(_stream("s", 20), _structured("1"), _structured("2"))
        _, ends = _ends(child, {"s", "1", "2"})
        assert isinstance(ends["s"], Done)
        for name in "12":
            failed = ends[name]
            assert isinstance(failed, Failed)
            assert (failed.code, "half installed" in failed.message) == ("engine_unavailable", True)
    assert child.close() == 0


def test_what_waited_at_a_purge_leaves_no_prefix_behind(fresh: Start) -> None:
    child = fresh()
    child.send(_structured("1"), Purge(id="p"))
    child.until(Purged, "p")
    child.until(Done, "1")
    _, again = child.ask()
    assert again.cached_tokens == 0


def test_a_request_for_an_adapter_that_is_being_attached_waits_for_it(fresh: Start, tmp_path: Path) -> None:
    content = files.small_adapter()
    path = files.write(tmp_path / "one.gguf", content)
    child = fresh(tmp_path)
    digest = hashlib.sha256(content).hexdigest()
    submit = Submit(id="1", prompt=PROMPT, domain="uid:1", params=Params(max_tokens=2), adapter="one")
    score = Score(id="2", prompt=PROMPT, domain="uid:1", choices=["a", "b"], adapter="one")
    child.send(Attach(id="a", name="one", path=str(path), digest=digest), submit, score)
    kinds: dict[str, str] = {}
    while len(kinds) < 3:
        message = child.receive()
        if not isinstance(message, Token):
            kinds[message.id] = type(message).__name__  # type: ignore[union-attr]
    assert kinds == {"a": "Attached", "1": "Done", "2": "Scored"}
    child.send(Attach(id="b", name="two", path=str(path), digest="0" * 64), Detach(id="d", name="one"))
    failed = child.until(Attached, "b")[-1]
    assert isinstance(failed, Failed)
    assert "has changed since it was added" in failed.message
    child.until(Attached, "d")
    assert isinstance(child.fail(submit, "1"), Failed)
    assert child.close() == 0


def test_a_stream_writes_on_while_a_large_adapter_is_read(fresh: Start, tmp_path: Path) -> None:
    # Padded behind its tensors: all of it is in the digest.
    path = files.write(tmp_path / "large.gguf", files.small_adapter())
    with path.open("r+b") as file:
        file.truncate(192 * 2**20)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    child = fresh(tmp_path)
    child.send(_stream("s", 600))
    child.until(Token, "s")
    child.send(Attach(id="a", name="large", path=str(path), digest=digest))
    seen = child.until(Attached, "a")
    assert isinstance(seen[-1], Attached)
    assert sum(isinstance(message, Token) for message in seen) > 5
    child.send(Cancel(id="s"))
    child.until(Done, "s")
    assert child.close() == 0

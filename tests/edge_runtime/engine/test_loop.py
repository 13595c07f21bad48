"""The engine child's loop at the other end of a real socket: cancels in the middle of a step, statistics, restarts."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.engine import structure
from edge_runtime.engine.messages import (
    Attach,
    Attached,
    Cancel,
    Class,
    Detach,
    Done,
    Failed,
    Load,
    Params,
    Ping,
    Pong,
    Purge,
    Purged,
    Ready,
    Score,
    Scored,
    Shrink,
    Stats,
    Submit,
    Token,
    Up,
    decode_up,
)
from edge_runtime.engine.structure import Document
from tests.edge_runtime import adapter_files as files
from tests.edge_runtime.engine.children import LONG, PROMPT, Child, text

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


class Watched(Child):
    """A child whose statistics are kept."""

    def __init__(self, *read: Path) -> None:
        super().__init__(*read)
        self.stats: list[Stats] = []

    def receive(self) -> Up | None:
        while True:
            while self._queue:
                message = self._queue.pop(0)
                if not isinstance(message, Stats):
                    return message
                self.stats.append(message)
            data = self.end.recv(1 << 16)
            if not data:
                return None
            self._queue += map(decode_up, self._frames.feed(data))

    def settle(self) -> Stats:
        """The statistics after all that was asked until now."""
        self.send(Ping(id="settle"))
        self.until(Pong, "settle")
        return self.stats[-1]


@pytest.fixture
def large(small_writer: Path) -> Iterator[Watched]:
    """A child that reads a whole prompt in one step."""
    child = Watched(small_writer.parent)
    child.send(Load(path=str(small_writer), name="small", context=1024, threads=1, batch=768))
    assert isinstance(child.receive(), Ready)
    yield child
    assert child.close() == 0


def test_a_cancel_ends_the_step_that_reads_its_prompt(large: Watched) -> None:
    large.send(Submit(id="1", domain="uid:1", prompt=LONG, params=Params(max_tokens=4)), Ping(id="p"))
    large.until(Pong, "p")
    time.sleep(0.1)  # the step of six hundred rows begins now, and takes many times as long
    large.send(Cancel(id="1"))
    done = large.until(Done, "1")[-1]
    assert isinstance(done, Done)
    assert (done.reason, done.completion_tokens) == ("cancelled", 0)
    tokens, after = large.ask(PROMPT)
    assert text(tokens)
    # None of the cancelled prompt's tokens was evaluated: the step was broken off.
    assert large.settle().prefilled == after.prompt_tokens


def test_a_cancel_of_one_of_two_leaves_the_step_of_both_whole(large: Watched) -> None:
    params = Params(max_tokens=30, ignore_eos=True)
    large.send(
        Submit(id="1", domain="uid:1", prompt=PROMPT, params=params),
        Submit(id="2", domain="uid:1", prompt="One, two,", params=params),
    )
    large.until(Token, "1")
    large.send(Cancel(id="1"))
    seen = large.until(Done, "2")
    (done,) = [message for message in seen if isinstance(message, Done) and message.id == "2"]
    assert done.completion_tokens == 30


def test_a_ping_is_answered_while_texts_are_written(large: Watched) -> None:
    large.send(Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=200, ignore_eos=True)))
    large.until(Token, "1")
    large.send(Ping(id="p"))
    assert not any(isinstance(message, Done) for message in large.until(Pong, "p"))
    large.send(Cancel(id="1"))
    large.until(Done, "1")


def test_the_statistics_say_at_the_end_that_nothing_runs_and_no_cell_is_taken(large: Watched) -> None:
    for number in range(3):
        large.send(
            Submit(
                id=f"{number}", domain="uid:1", prompt=f"{PROMPT}{number}", params=Params(max_tokens=3, ignore_eos=True)
            )
        )
    ends = 0
    while ends < 3:
        ends += isinstance(large.receive(), Done)
    large.ask(PROMPT, max_tokens=1)
    last = large.settle()
    assert (last.running, last.waiting, last.cells_used, last.parked) == (0, 0, 0, 0)
    assert last.cells_total == 1024
    assert last.cache_bytes > 0
    assert any(stats.running for stats in large.stats)
    assert last.prefilled > 0
    assert last.resident > 0
    large.send(Shrink(cache_bytes=0))
    large.ask(PROMPT, max_tokens=1)
    assert large.settle().cache_bytes == 0


def test_an_urgent_request_is_over_before_the_batches_that_were_first(
    start: Callable[..., Child], small_writer: Path
) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=256, threads=1, slots=2))
    child.receive()
    classes: tuple[Class, ...] = ("batch", "batch", "realtime")
    for number, priority in enumerate(classes):
        params = Params(max_tokens=40 if priority == "batch" else 3, ignore_eos=True)
        child.send(Submit(id=f"{number}", domain="uid:1", prompt=f"{PROMPT}{number}", params=params, priority=priority))
    order: list[Done] = []
    while len(order) < 3:
        message = child.receive()
        assert not isinstance(message, Failed)
        if isinstance(message, Done):
            order.append(message)
    assert order[0].id == "2"
    assert sorted(done.completion_tokens for done in order) == [3, 40, 40]


def test_a_document_that_a_dead_engine_left_is_written_to_its_end_by_the_next(
    start: Callable[..., Child], small_writer: Path
) -> None:
    form = structure.encode(Document(schema=SCHEMA))
    prompt = "<|im_start|>user\nA warm city, as JSON.<|im_end|>\n<|im_start|>assistant\n"
    load = Load(path=str(small_writer), name="small", context=512, threads=1)

    def ask(child: Child, resume: list[int]) -> tuple[list[int], str]:
        child.send(
            Submit(id="1", domain="uid:1", prompt=prompt, params=Params(max_tokens=60), structure=form, resume=resume)
        )
        tokens = [message for message in child.until(Done, "1") if isinstance(message, Token)]
        return [one for token in tokens for one in token.ids], text(tokens)

    first = start()
    first.send(load)
    first.receive()
    ids, whole = ask(first, [])
    told = json.loads(whole)
    assert set(told) == {"city", "warm"}
    os.kill(first.process.pid, signal.SIGKILL)
    second = start()
    second.send(load)
    second.receive()
    for count in (1, len(ids) // 2, len(ids) - 1, len(ids)):
        rest, _ = ask(second, ids[:count])
        assert ids[:count] + rest == ids


def test_a_purge_before_a_model_is_loaded_is_answered(start: Callable[..., Child]) -> None:
    child = start()
    child.send(Purge(id="p"))
    assert isinstance(child.receive(), Purged)


def test_scores_are_answered_beside_texts(large: Watched) -> None:
    large.send(
        Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=20, ignore_eos=True)),
        Score(id="s", domain="uid:1", prompt="The pump", choices=[" runs", " is", " x y z"]),
    )
    kinds: dict[str, Up] = {}
    while len(kinds) < 2:
        message = large.receive()
        assert message is not None
        if not isinstance(message, Token):
            kinds[message.id] = message  # type: ignore[union-attr]
    assert isinstance(kinds["s"], Scored)
    assert isinstance(kinds["1"], Done)


def test_an_adapter_that_is_detached_while_it_writes_ends_that_text_and_not_the_engine(
    small_writer: Path, tmp_path: Path
) -> None:
    content = files.small_adapter()
    path = files.write(tmp_path / "one.gguf", content)
    child = Child(small_writer.parent, tmp_path)
    child.send(Load(path=str(small_writer), name="small", context=512, threads=1))
    child.receive()
    child.send(Attach(id="a", name="one", path=str(path), digest=hashlib.sha256(content).hexdigest()))
    assert isinstance(child.receive(), Attached)
    child.send(
        Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=300, ignore_eos=True), adapter="one")
    )
    child.until(Token, "1")
    child.send(Detach(id="d", name="one"))
    child.until(Attached, "d")
    end = child.receive()
    while isinstance(end, Token):
        end = child.receive()
    assert isinstance(end, Failed | Done)
    assert child.ask(max_tokens=2)[1].completion_tokens == 2
    assert child.close() == 0


@pytest.mark.parametrize("context", [1, 2, 16, 40])
def test_a_context_smaller_than_a_step_serves_what_fits_into_it(
    start: Callable[..., Child], small_writer: Path, context: int
) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=context, threads=1))
    ready = child.receive()
    assert isinstance(ready, Ready), ready
    assert ready.context == context
    child.send(Submit(id="1", domain="uid:1", prompt="One", params=Params(max_tokens=4, ignore_eos=True)))
    end = child.until(Done, "1")[-1]
    if context == 1:
        assert isinstance(end, Failed)
        assert end.code == "context_length_exceeded"
    else:
        assert isinstance(end, Done)
        assert end.completion_tokens == min(4, context - 1)

"""The life of the engine child: queues, cancels, damaged models, bad messages, and how it ends."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_runtime.engine.llama import binding
from edge_runtime.engine.messages import (
    Cancel,
    Done,
    Embed,
    Failed,
    Load,
    Params,
    Probe,
    Probed,
    Purge,
    Purged,
    Ready,
    Stop,
    Submit,
    Token,
)
from edge_runtime.errors import RequestError
from tests.edge_runtime.engine.children import LONG, PROMPT, Child, text


def test_ready_tells_what_the_model_file_says(start: Callable[..., Child], small_writer: Path) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=300, threads=1))
    ready = child.receive()
    assert isinstance(ready, Ready)
    assert (ready.name, ready.context, ready.width, ready.eos) == ("small", 300, 49152, "<|im_end|>")
    assert "im_start" in (ready.template or "")
    child.send(Stop())
    assert child.receive() is None
    assert child.process.wait(timeout=60) == 0


def test_two_requests_together_are_answered_together(child: Child) -> None:
    params = Params(max_tokens=12)
    child.send(
        Submit(id="1", domain="uid:1", prompt=PROMPT, params=params),
        Submit(id="2", domain="uid:1", prompt="One, two,", params=params),
    )
    seen: dict[str, int] = {"1": 0, "2": 0}
    first_end: dict[str, int] = {}
    while len(first_end) < 2:
        message = child.receive()
        if isinstance(message, Token):
            seen[message.id] += 1
        elif isinstance(message, Done):
            first_end.setdefault(message.id, min(seen.values()))
    # Neither was over before the other had begun.
    assert all(count > 0 for count in first_end.values())


def test_a_lone_stream_is_sent_some_tokens_at_a_time_but_its_first_at_once_and_none_is_lost(child: Child) -> None:
    child.send(Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=200, ignore_eos=True)))
    tokens = [message for message in child.until(Done, "1") if isinstance(message, Token) and message.ids]
    together = [len(token.ids) for token in tokens]
    assert together[0] == 1
    assert max(together) > 1
    assert [token.tokens for token in tokens] == list(itertools.accumulate(together))
    assert tokens[-1].tokens == 200


def test_a_purge_is_answered_while_a_request_runs_which_goes_on_and_leaves_nothing(child: Child) -> None:
    child.ask()
    child.send(Submit(id="1", domain="uid:1", prompt="One, two, " * 20, params=Params(max_tokens=200, ignore_eos=True)))
    assert isinstance(child.receive(), Token)
    child.send(Purge(id="p"))
    seen = child.until(Purged, "p")
    assert not any(isinstance(message, Done) for message in seen)
    done = child.until(Done, "1")[-1]
    assert isinstance(done, Done)
    assert done.completion_tokens == 200
    for prompt in (PROMPT, "One, two, " * 20):
        assert child.ask(prompt)[1].cached_tokens == 0


def test_a_cancel_while_generating_ends_that_request_and_the_next_one_runs(child: Child) -> None:
    child.send(Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=450, ignore_eos=True)))
    assert isinstance(child.receive(), Token)
    child.send(Cancel(id="1"))
    done = child.until(Done, "1")[-1]
    assert isinstance(done, Done)
    assert done.reason == "cancelled"
    assert 0 < done.completion_tokens < 450
    tokens, _ = child.ask()
    assert text(tokens)


def test_a_cancel_in_the_middle_of_a_prompt_is_seen_between_two_chunks(
    start: Callable[..., Child], small_writer: Path
) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=2048, threads=1, batch=16))
    child.receive()
    child.send(Submit(id="1", domain="uid:1", prompt=LONG, params=Params(max_tokens=4)), Cancel(id="1"))
    done = child.until(Done, "1")[-1]
    assert isinstance(done, Done)
    assert (done.reason, done.completion_tokens) == ("cancelled", 0)
    tokens, _ = child.ask()
    assert text(tokens)


def test_a_cancel_of_a_waiting_request_leaves_the_running_one_alone(child: Child) -> None:
    params = Params(max_tokens=20, ignore_eos=True)
    child.send(
        Submit(id="1", domain="uid:1", prompt=PROMPT, params=params),
        Submit(id="2", domain="uid:1", prompt=PROMPT, params=params),
    )
    child.send(Cancel(id="2"), Cancel(id="never was here"))
    seen = child.until(Done, "1")
    ends = {message.id: message for message in seen if isinstance(message, Done)}
    assert (ends["2"].reason, ends["1"].reason, ends["1"].completion_tokens) == ("cancelled", "length", 20)


@pytest.mark.parametrize(
    "params", [Params(max_tokens=-1), Params(top_p=7.0), Params(logit_bias={10**7: 1.0}), Params(logprobs=10**6)]
)
def test_a_parameter_that_cannot_be_is_refused_and_the_child_goes_on(child: Child, params: Params) -> None:
    assert child.fail(Submit(id="a", domain="uid:1", prompt=PROMPT, params=params)).code == "invalid_request"
    assert child.ask(max_tokens=1)[1].completion_tokens == 1


def test_an_empty_prompt_is_refused(child: Child) -> None:
    assert child.fail(Submit(id="a", domain="uid:1", prompt="")).code == "invalid_request"


def test_an_error_about_one_parameter_names_it_on_its_way_up(child: Child) -> None:
    failed = child.fail(Submit(id="a", domain="uid:1", prompt="One", params=Params(logit_bias={10**8: 1.0})))
    assert (failed.code, failed.param) == ("invalid_request", "logit_bias")
    error = failed.error
    assert (type(error), error.param, error.message) == (RequestError, "logit_bias", failed.message)


def test_messages_that_are_not_of_the_protocol_are_refused_and_the_child_goes_on(child: Child) -> None:
    for body, name in (
        (msgspec.msgpack.encode({"op": "dance", "id": "x"}), "x"),
        (msgspec.msgpack.encode({"op": "submit", "id": "y", "prompt": 3}), "y"),
        (b"\xff\x00 not msgpack", ""),
        (b"", ""),
    ):
        child.end.sendall(struct.pack(">I", len(body)) + body)
        answer = child.receive()
        assert isinstance(answer, Failed)
        assert (answer.id, answer.code) == (name, "invalid_request")
    assert child.fail(Embed(id="e", texts=["x"]), "e").code == "invalid_request"
    assert child.ask(max_tokens=1)[1].completion_tokens == 1


def test_a_request_before_the_model_is_loaded_is_refused(start: Callable[..., Child]) -> None:
    assert start().fail(Submit(id="a", domain="uid:1", prompt="x")).code == "engine_unavailable"


def _missing(_: Path, target: Path) -> None:
    assert not target.exists()


def _truncated(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


def _not_gguf(_: Path, target: Path) -> None:
    target.write_bytes(b"PK\x03\x04" + bytes(4096))


def _empty(_: Path, target: Path) -> None:
    target.touch()


def _scrambled_head(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        file.seek(24)
        file.write(b"\xff" * 64)


def _impossible_counts(source: Path, target: Path) -> None:
    target.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + bytes(4096))


@pytest.mark.parametrize("spoil", [_missing, _truncated, _not_gguf, _empty, _scrambled_head, _impossible_counts])
def test_a_damaged_model_file_fails_the_load_and_a_whole_one_loads_afterwards(
    start: Callable[..., Child], small_writer: Path, tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "model.gguf"
    spoil(small_writer, target)
    child = start(tmp_path)
    failed = child.fail(Load(path=str(target), name="bad", threads=1), "load")
    assert failed.code == "model_file"
    assert "edge model" in failed.message
    child.send(Load(path=str(small_writer), name="good", context=256, threads=1))
    assert isinstance(child.receive(), Ready)


def test_a_model_outside_the_readable_directories_cannot_be_loaded(
    start: Callable[..., Child], small_writer: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model.gguf"
    shutil.copyfile(small_writer, target)
    failed = start().fail(Load(path=str(target), name="elsewhere", threads=1), "load")
    assert failed.code == "model_file"


def test_a_load_while_requests_are_in_flight_is_refused(child: Child, small_writer: Path) -> None:
    child.send(Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=500, ignore_eos=True)))
    child.receive()
    child.send(Load(path=str(small_writer), name="again", threads=1))
    failed = child.until(Failed, "load")[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "refused"
    child.send(Cancel(id="1"))
    child.until(Done, "1")


def test_the_sealed_child_can_find_no_way_out(child: Child) -> None:
    child.send(Probe(id="p"))
    probed = child.until(Probed, "p")[-1]
    assert isinstance(probed, Probed)
    assert probed.attempts
    assert [attempt for attempt in probed.attempts if not attempt[1]] == []


def test_a_child_that_was_stopped_in_a_step_does_not_take_its_steps_for_slow(child: Child) -> None:
    prompt = LONG[: len(LONG) // 2]
    child.ask(prompt, "before", max_tokens=8, ignore_eos=True)
    assert child.stats is not None
    before = child.stats.prefill_ms
    params = Params(max_tokens=8, ignore_eos=True, cache_prompt=False)
    child.send(Submit(id="stopped", domain="uid:1", prompt=prompt, params=params))
    time.sleep(0.1)
    os.kill(child.process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(child.process.pid, signal.SIGCONT)
    child.until(Done, "stopped")
    assert child.stats.prefill_ms < 4 * before


def test_a_killed_child_is_seen_as_the_end_of_the_stream(start: Callable[..., Child], small_writer: Path) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=512, threads=1))
    child.receive()
    child.send(Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=400, ignore_eos=True)))
    assert isinstance(child.receive(), Token)
    os.kill(child.process.pid, signal.SIGKILL)
    while child.receive() is not None:
        pass
    assert child.process.wait(timeout=60) == -signal.SIGKILL


def test_a_parent_that_goes_away_in_the_middle_of_a_frame_ends_the_child(start: Callable[..., Child]) -> None:
    child = start()
    child.end.sendall(struct.pack(">I", 1000) + b"half")
    assert child.close() == 0


def test_a_parent_that_goes_away_while_text_streams_ends_the_child(
    start: Callable[..., Child], small_writer: Path
) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=512, threads=1))
    child.receive()
    child.send(Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=400, ignore_eos=True)))
    assert isinstance(child.receive(), Token)
    assert child.close() == 0


def test_a_frame_over_the_limit_ends_the_child_with_an_error(start: Callable[..., Child]) -> None:
    child = start()
    child.end.sendall(b"\xff\xff\xff\xff")
    assert child.receive() is None
    assert child.process.wait(timeout=60) == 1


def test_an_interrupt_at_the_terminal_leaves_the_child_to_its_parent(child: Child) -> None:
    child.process.send_signal(signal.SIGINT)
    assert child.ask(max_tokens=1)[1].completion_tokens == 1


def test_the_low_level_binding_comes_without_the_high_level_package() -> None:
    program = (
        "import sys; from edge_runtime.engine.llama import binding; binding(); print('llama_cpp.llama' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
    assert binding().llama_max_parallel_sequences() > 0

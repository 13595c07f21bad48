"""The engine child as a real process at the other end of a real socket pair, with a real model."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime.engine.llama import Llama, Shape, binding
from edge_runtime.engine.messages import (
    Cancel,
    Done,
    Down,
    Embed,
    Failed,
    Frames,
    Load,
    Params,
    Probe,
    Probed,
    Purge,
    Purged,
    Ready,
    Score,
    Scored,
    Stats,
    Stop,
    Submit,
    Token,
    Up,
    decode_up,
    encode,
)
from edge_runtime.engine.sampling import log_softmax

_PROMPT = "<|im_start|>user\nWhat does a pump do?<|im_end|>\n<|im_start|>assistant\n"
_LONG = "The pump runs. " * 300  # about 1,200 tokens


class Child:
    """The test's side: sends messages, gathers answers."""

    def __init__(self, *read: Path) -> None:
        self.end, theirs = socket.socketpair()
        readable = [part for path in read for part in ("--read", str(path))]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge_runtime.engine", "--fd", str(theirs.fileno()), *readable],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._frames = Frames()
        self._queue: list[Up] = []

    def send(self, *messages: Down) -> None:
        self.end.sendall(b"".join(map(encode, messages)))

    def receive(self) -> Up | None:
        """The next message that is not statistics; None at the end of the stream."""
        while True:
            while self._queue:
                message = self._queue.pop(0)
                if not isinstance(message, Stats):
                    return message
            data = self.end.recv(1 << 16)
            if not data:
                return None
            self._queue += map(decode_up, self._frames.feed(data))

    def until(self, kind: type[Up], name: str) -> list[Up]:
        """Everything up to the ``kind`` (or the failure) of the request ``name``."""
        seen: list[Up] = []
        while True:
            message = self.receive()
            assert message is not None, seen
            seen.append(message)
            if isinstance(message, (kind, Failed)) and getattr(message, "id", "") == name:
                return seen

    def ask(self, prompt: str = _PROMPT, name: str = "a", **params: object) -> tuple[list[Token], Done]:
        self.send(Submit(id=name, prompt=prompt, params=msgspec.convert({"max_tokens": 16, **params}, Params)))
        *tokens, done = self.until(Done, name)
        assert isinstance(done, Done), done
        return [token for token in tokens if isinstance(token, Token)], done

    def fail(self, message: Down, name: str = "a") -> Failed:
        self.send(message)
        answer = self.receive()
        assert isinstance(answer, Failed)
        assert answer.id == name
        return answer

    def close(self) -> int:
        self.end.close()
        return self.process.wait(timeout=60)


def _text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


@pytest.fixture(scope="module")
def writer(small_writer: Path) -> Iterator[Llama]:
    """The same file in this process, for bare loops."""
    model = Llama(small_writer, Shape(context=512, threads=1, outputs=64))
    yield model
    model.close()


@pytest.fixture
def start(small_writer: Path) -> Iterator[Callable[..., Child]]:
    """Starts children that may read the model's directory, and ends those that are left."""
    children: list[Child] = []

    def make(*read: Path) -> Child:
        children.append(Child(small_writer.parent, *read))
        return children[-1]

    yield make
    for child in children:
        child.process.kill()
        child.process.wait()
        child.end.close()


@pytest.fixture(scope="module")
def child(small_writer: Path) -> Iterator[Child]:
    """One child with the small writer and 1,024 cells, which the tests of answers share."""
    made = Child(small_writer.parent)
    made.send(Load(path=str(small_writer), name="small", context=1024, threads=1, batch=64))
    assert isinstance(made.receive(), Ready)
    yield made
    assert made.close() == 0


def _greedy(model: Llama, prompt: str, count: int) -> list[int]:
    """A bare loop over ``llama_decode``: the reference."""
    model.clear()
    tokens = model.vocabulary.tokens(prompt)
    model.decode(tokens, 0)
    found: list[int] = []
    while len(found) < count:
        token = int(model.logits().argmax())
        found.append(token)
        model.decode([token], len(tokens) + len(found) - 1)
    return found


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


def test_greedy_text_is_that_of_a_bare_decode_loop(child: Child, writer: Llama) -> None:
    child.send(Purge(id="p"))  # chunks and shared cells change the last bits of a float
    child.until(Purged, "p")
    tokens, done = child.ask(max_tokens=40)
    wanted = b"".join(map(writer.vocabulary.piece, _greedy(writer, _PROMPT, 40)))
    assert _text(tokens) == wanted.decode()
    assert (done.reason, done.completion_tokens, done.prompt_tokens) == ("length", 40, len(writer.vocabulary.tokens(_PROMPT)))


def test_a_second_request_reuses_the_cells_of_the_first_and_says_the_same(child: Child) -> None:
    child.send(Purge(id="p"))
    child.until(Purged, "p")
    first, cold = child.ask()
    second, warm = child.ask()
    assert cold.cached_tokens == 0
    assert warm.cached_tokens == warm.prompt_tokens - 1  # one token is evaluated again: its logits are needed
    assert _text(first) == _text(second)
    _, fresh = child.ask(cache_prompt=False)
    assert fresh.cached_tokens == 0


def test_only_the_shared_beginning_is_reused(child: Child, writer: Llama) -> None:
    child.ask("The pump is a machine that moves water.", max_tokens=1)
    _, done = child.ask("The pump is a bird.", max_tokens=1)
    one, two = (writer.vocabulary.tokens(text) for text in ("The pump is a machine", "The pump is a bird."))
    assert done.cached_tokens == sum(1 for a, b in zip(one, two, strict=False) if a == b)


def test_after_a_purge_nothing_is_reused(child: Child) -> None:
    child.ask(max_tokens=1)
    child.send(Purge(id="p"))
    assert child.until(Purged, "p") == [Purged(id="p")]
    _, done = child.ask(max_tokens=1)
    assert done.cached_tokens == 0


def test_two_requests_queued_are_answered_one_after_the_other(child: Child) -> None:
    params = Params(max_tokens=5)
    child.send(Submit(id="1", prompt=_PROMPT, params=params), Submit(id="2", prompt="One, two,", params=params))
    names = [message.id for message in child.until(Done, "2") if isinstance(message, (Token, Done))]
    assert names == ["1"] * names.count("1") + ["2"] * names.count("2")
    assert {"1", "2"} == set(names)


def test_a_cancel_while_generating_ends_that_request_and_the_next_one_runs(child: Child) -> None:
    child.send(Submit(id="1", prompt=_PROMPT, params=Params(max_tokens=900, ignore_eos=True)))
    assert isinstance(child.receive(), Token)
    child.send(Cancel(id="1"))
    done = child.until(Done, "1")[-1]
    assert isinstance(done, Done)
    assert done.reason == "cancelled"
    assert 0 < done.completion_tokens < 900
    tokens, _ = child.ask()
    assert _text(tokens)


def test_a_cancel_in_the_middle_of_a_prompt_is_seen_between_two_chunks(
    start: Callable[..., Child], small_writer: Path
) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=2048, threads=1, batch=16))
    child.receive()
    child.send(Submit(id="1", prompt=_LONG, params=Params(max_tokens=4)), Cancel(id="1"))
    done = child.until(Done, "1")[-1]
    assert isinstance(done, Done)
    assert (done.reason, done.completion_tokens) == ("cancelled", 0)
    tokens, _ = child.ask()
    assert _text(tokens)


def test_a_cancel_of_a_waiting_request_leaves_the_running_one_alone(child: Child) -> None:
    params = Params(max_tokens=20, ignore_eos=True)
    child.send(Submit(id="1", prompt=_PROMPT, params=params), Submit(id="2", prompt=_PROMPT, params=params))
    child.send(Cancel(id="2"), Cancel(id="never was here"))
    seen = child.until(Done, "1")
    ends = {message.id: message for message in seen if isinstance(message, Done)}
    assert (ends["2"].reason, ends["1"].reason, ends["1"].completion_tokens) == ("cancelled", "length", 20)


def test_a_stop_string_ends_the_text_before_it_even_where_tokens_split_it(child: Child) -> None:
    whole = _text(child.ask(max_tokens=30)[0])
    stop = whole[12:20]  # it begins and ends inside words
    tokens, done = child.ask(max_tokens=30, stop=["never said", stop])
    assert (_text(tokens), done.reason) == (whole[: whole.index(stop)], "stop")


def test_the_end_token_ends_the_text_unless_it_is_ignored(child: Child) -> None:
    prompt = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>"
    over, done = child.ask(prompt + "\n<|im_start|>assistant\n", max_tokens=200)
    assert done.reason == "stop"
    assert done.completion_tokens < 200
    more, ignored = child.ask(prompt + "\n<|im_start|>assistant\n", max_tokens=done.completion_tokens + 5, ignore_eos=True)
    assert (ignored.reason, ignored.completion_tokens) == ("length", done.completion_tokens + 5)
    assert _text(more).startswith(_text(over))


def test_the_same_seed_gives_the_same_text_and_another_seed_another(child: Child) -> None:
    def say(seed: int) -> str:
        return _text(child.ask(temperature=1.3, top_k=0, top_p=1.0, seed=seed, cache_prompt=False)[0])

    assert say(5) == say(5)
    assert say(5) != say(6)


def test_log_probabilities_are_those_of_the_model_and_the_best_sum_below_one(child: Child, writer: Llama) -> None:
    tokens, done = child.ask(max_tokens=8, logprobs=5, cache_prompt=False)
    told = [token for token in tokens if token.logprob is not None]
    assert len(told) == done.completion_tokens
    assert b"".join(token.piece for token in told).decode() == _text(tokens)
    writer.clear()
    ids = writer.vocabulary.tokens(_PROMPT)
    writer.decode(ids, 0)
    for place, token in enumerate(told):
        logs = log_softmax(writer.logits())
        best = int(logs.argmax())
        assert token.logprob == pytest.approx(float(logs[best]), abs=0.05)
        assert [top.logprob for top in token.top] == sorted((top.logprob for top in token.top), reverse=True)
        assert len(token.top) == 5
        assert token.top[0].text == writer.vocabulary.piece(best, special=True)
        assert sum(np.exp(top.logprob) for top in token.top) <= 1.0001
        writer.decode([best], len(ids) + place)


def test_half_a_character_is_never_sent(child: Child) -> None:
    tokens, _ = child.ask("Emoji: 🚰🔧🌊🚰🔧🌊🚰🔧🌊🚰", max_tokens=24, logprobs=0)
    assert any(not token.text for token in tokens)  # this tokenizer does cut characters
    assert _text(tokens) == b"".join(token.piece for token in tokens).decode("utf-8", "replace")
    assert all("\ufffd" not in token.text for token in tokens[:-1])


def test_scores_are_the_sums_of_a_naive_pass_over_each_choice(child: Child, writer: Llama) -> None:
    prompt, choices = "The capital of France is", [" Paris", " Rome", " the largest city of the country, by far"]
    child.send(Score(id="s", prompt=prompt, choices=choices))
    scored = child.until(Scored, "s")[-1]
    assert isinstance(scored, Scored)
    for choice, found, count in zip(choices, scored.logprobs, scored.tokens, strict=True):
        head, tail = writer.vocabulary.tokens(prompt), writer.vocabulary.tokens(choice, bos=False)
        writer.clear()
        writer.decode([*head, *tail], 0, outputs=len(tail) + 1)
        wanted = sum(
            float(log_softmax(writer.logits(len(head) - 1 + place))[token]) for place, token in enumerate(tail)
        )
        assert count == len(tail)
        assert found == pytest.approx(wanted, abs=0.15 * count)
    assert scored.logprobs[0] > scored.logprobs[1]


def test_a_score_with_an_empty_choice_is_refused(child: Child) -> None:
    assert child.fail(Score(id="a", prompt="x", choices=["yes", ""])).code == "invalid_request"


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(child: Child) -> None:
    failed = child.fail(Submit(id="a", prompt=_LONG, params=Params(max_tokens=1)))
    assert failed.code == "context_length_exceeded"
    assert "1,2" in failed.message
    assert "1,024" in failed.message
    assert child.ask(max_tokens=1)[1].completion_tokens == 1


def test_an_answer_longer_than_the_context_ends_at_its_edge(child: Child, writer: Llama) -> None:
    prompt = "The pump runs. " * 250
    room = 1024 - len(writer.vocabulary.tokens(prompt))
    assert 0 < room < 100
    _, done = child.ask(prompt, max_tokens=500, ignore_eos=True)
    assert (done.reason, done.completion_tokens) == ("length", room)


@pytest.mark.parametrize(
    "params", [Params(max_tokens=-1), Params(top_p=7.0), Params(logit_bias={10**7: 1.0}), Params(logprobs=10**6)]
)
def test_a_parameter_that_cannot_be_is_refused_and_the_child_goes_on(child: Child, params: Params) -> None:
    assert child.fail(Submit(id="a", prompt=_PROMPT, params=params)).code == "invalid_request"
    assert child.ask(max_tokens=1)[1].completion_tokens == 1


def test_an_empty_prompt_is_refused(child: Child) -> None:
    assert child.fail(Submit(id="a", prompt="")).code == "invalid_request"


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
    assert start().fail(Submit(id="a", prompt="x")).code == "engine_unavailable"


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
    child.send(Submit(id="1", prompt=_PROMPT, params=Params(max_tokens=500, ignore_eos=True)))
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


def test_a_killed_child_is_seen_as_the_end_of_the_stream(start: Callable[..., Child], small_writer: Path) -> None:
    child = start()
    child.send(Load(path=str(small_writer), name="small", context=512, threads=1))
    child.receive()
    child.send(Submit(id="1", prompt=_PROMPT, params=Params(max_tokens=400, ignore_eos=True)))
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
    child.send(Submit(id="1", prompt=_PROMPT, params=Params(max_tokens=400, ignore_eos=True)))
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
    program = "import sys; from edge_runtime.engine.llama import binding; binding(); print('llama_cpp.llama' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    assert binding().llama_max_parallel_sequences() > 0

"""The lease on the CPU between real processes: who gets it next, and what one that dies or stands still costs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby

import pytest

from edge_runtime.turn import Turn

Process = subprocess.Popen[str]
Start = Callable[..., Process]

# Takes turns of 2 ms, asking for the next at once, and writes its letter in each.
GREEDY = """
import os, sys, time
from edge_runtime.turn import Turn
turn, letter, out, count = Turn.at(int(sys.argv[1])), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
print("sits", flush=True)
sys.stdin.readline()
for _ in range(count):
    with turn:
        os.write(out, letter)
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
"""
HOLDER = """
import sys, time
from edge_runtime.turn import Turn
with Turn.at(int(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""
SEALED = """
import sys
from edge_runtime import seal
from edge_runtime.turn import Turn
seal.seal(seal.Access(), unsealed_ok=True)
seal.seal_child(seal.Access(), unsealed_ok=True)
turn = Turn.at(int(sys.argv[1]))
with turn:
    print(turn.held, flush=True)
"""


@pytest.fixture
def turn() -> Iterator[Turn]:
    made = Turn.create()
    yield made
    assert made.descriptor is not None
    os.close(made.descriptor)


@pytest.fixture
def start(turn: Turn) -> Iterator[Start]:
    """Starts processes that inherit the lease, and ends those that are left."""
    with contextlib.ExitStack() as stack:

        def launch(code: str, *arguments: object, keep: int | None = None) -> Process:
            assert turn.descriptor is not None
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(turn.descriptor), *map(str, arguments)],
                pass_fds=[turn.descriptor, *([keep] if keep is not None else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield launch


def tell(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("letters", ["ab", "abc"])
def test_processes_that_all_want_the_cpu_at_once_take_it_in_turns(start: Start, letters: str) -> None:
    inward, outward = os.pipe()
    processes = [start(GREEDY, letter, outward, 60, keep=outward) for letter in letters]
    os.close(outward)
    assert [hear(one) for one in processes] == ["sits"] * len(letters)
    for one in processes:
        tell(one)
    for one in processes:
        assert one.wait(60) == 0
    with os.fdopen(inward) as file:
        order = file.read()
    assert {letter: order.count(letter) for letter in letters} == dict.fromkeys(letters, 60)
    # From the moment at which all are there until one has finished, nobody goes twice in a row.
    first = max(order.index(letter) for letter in letters) + 2
    last = min(order.rindex(letter) for letter in letters)
    assert max(len(list(same)) for _, same in groupby(order[first:last])) <= 2


def test_a_holder_that_is_killed_leaves_the_lease_to_the_next(turn: Turn, start: Start) -> None:
    holder = start(HOLDER)
    assert hear(holder) == "holds"
    holder.kill()
    holder.wait()
    for _ in range(3):
        with turn:
            assert turn.held
    other = start(SEALED)
    assert hear(other) == "True"


def test_a_holder_that_stands_still_is_waited_for_once_and_passed_by(
    turn: Turn, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert turn.descriptor is not None
    holder = start(HOLDER)
    assert hear(holder) == "holds"
    holder.send_signal(signal.SIGSTOP)
    hasty = Turn(turn.descriptor, patience=0.2)
    hasty._seat = turn._seat
    for _ in range(50):
        with hasty:
            assert not hasty.held
    assert capsys.readouterr().err.count("turn: another process") == 1
    holder.kill()
    holder.wait()
    with hasty:
        assert hasty.held


def test_a_sealed_child_of_a_sealed_process_takes_its_turn(start: Start) -> None:
    child = start(SEALED)
    assert hear(child) == "True"
    assert child.wait(60) == 0


def spent_by_a_child(turn: Turn, start: Start) -> float:
    """The CPU seconds that this process sees used by a child that takes a hundred turns of 2 ms."""
    inward, outward = os.pipe()
    child = start(GREEDY, "x", outward, 100, keep=outward)
    assert hear(child) == "sits"
    before = turn.others_cpu()
    began = time.process_time()
    tell(child)
    assert child.wait(60) == 0
    os.close(outward)
    os.close(inward)
    while time.process_time() < began + 0.3:
        pass
    turn.mark()
    return turn.others_cpu() - before


def test_each_process_sees_the_cpu_time_of_the_others_and_not_its_own(turn: Turn, start: Start) -> None:
    assert 0.15 < spent_by_a_child(turn, start) < 0.3


def test_a_child_that_is_started_again_is_no_stranger(turn: Turn, start: Start) -> None:
    for _ in range(3):
        assert 0.15 < spent_by_a_child(turn, start) < 0.3


def test_a_process_that_closes_another_descriptor_of_the_lease_keeps_its_seat(turn: Turn, start: Start) -> None:
    assert turn.descriptor is not None
    os.close(os.dup(turn.descriptor))
    assert 0.15 < spent_by_a_child(turn, start) < 0.3


def test_the_seat_of_a_process_that_ended_is_taken_by_the_next(turn: Turn, start: Start) -> None:
    assert turn.descriptor is not None
    for _ in range(3):
        with start(SEALED) as child:
            assert hear(child) == "True"
    again = Turn.at(turn.descriptor)
    assert again._seat - turn._seat <= 2 * 16


def test_entering_a_turn_twice_is_refused_and_not_waited_for(turn: Turn) -> None:
    with turn, pytest.raises(RuntimeError, match="holds the turn already"), turn:
        pass


def test_a_process_alone_needs_no_lease() -> None:
    alone = Turn.free()
    with alone, alone:
        assert alone.others_cpu() == 0.0
    assert alone.descriptor is None

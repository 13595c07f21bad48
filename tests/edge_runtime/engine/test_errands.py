"""Work beside the loop: in order, one after the other, its errors told, its end waited for where that is asked."""

from __future__ import annotations

import threading

import pytest

from edge_runtime.engine.errands import Errands
from edge_runtime.errors import EdgeError, EngineError

PATIENCE = 30.0


class Loop:
    """A loop that does nothing but to wait for its errands."""

    def __init__(self) -> None:
        self._woken = threading.Semaphore(0)
        self.errands = Errands("test", self._woken.release)
        self.seen: list[object] = []

    def note(self, name: str) -> None:
        self.seen.append(name)

    def end(self, error: EdgeError | None) -> None:
        self.seen.append(error)

    def turn(self) -> None:
        assert self._woken.acquire(timeout=PATIENCE)
        self.errands.collect()


def test_pieces_are_done_in_their_order_each_after_the_one_before_was_taken_up() -> None:
    loop = Loop()
    for name in ("first", "second"):
        loop.errands.add(lambda name=name: loop.note(name), loop.end)  # type: ignore[misc]
    loop.turn()
    loop.turn()
    assert loop.seen == ["first", None, "second", None]
    assert not loop.errands.busy


def test_an_error_is_told_and_the_next_piece_is_done() -> None:
    loop, error = Loop(), EngineError("no")

    def fail() -> None:
        raise error

    loop.errands.add(fail, loop.end)
    loop.errands.add(lambda: loop.note("next"), loop.end)
    loop.turn()
    loop.turn()
    assert loop.seen == [error, "next", None]


def test_a_fault_of_the_program_is_raised_in_the_loop() -> None:
    loop = Loop()
    loop.errands.add([].pop, loop.end)
    with pytest.raises(IndexError):
        loop.turn()
    assert loop.seen == []


def test_closing_waits_for_what_is_being_done_and_drops_the_rest() -> None:
    loop, begun, go = Loop(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(PATIENCE)
        loop.note("done")

    loop.errands.add(work, loop.end)
    loop.errands.add(lambda: loop.note("never"), loop.end)
    assert begun.wait(PATIENCE)
    threading.Timer(0.05, go.set).start()
    loop.errands.close()
    assert loop.seen == ["done"]
    assert not loop.errands.busy

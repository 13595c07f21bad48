"""The ledger of KV cells against a plain model of them, and against llama.cpp's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine.cells import Cells, Ledger
from edge_runtime.engine.llama import Llama

_SEQUENCES = st.integers(0, 4)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), _SEQUENCES, st.integers(1, 9), st.just(0)),
        st.tuples(st.just("share"), _SEQUENCES, st.integers(0, 20), _SEQUENCES),
        st.tuples(st.just("cut"), _SEQUENCES, st.integers(0, 20), st.just(0)),
    ),
    max_size=40,
)


class _Reference:
    """Every cell has a name, and each sequence is a list of names."""

    def __init__(self) -> None:
        self.made = 0
        self.sequences: dict[int, list[int]] = {}

    def grow(self, sequence: int, cells: int) -> None:
        self.sequences.setdefault(sequence, []).extend(range(self.made, self.made + cells))
        self.made += cells

    def share(self, source: int, target: int, length: int) -> None:
        self.sequences[target] = self.sequences.get(source, [])[:length]

    def cut(self, sequence: int, length: int) -> None:
        self.sequences[sequence] = self.sequences.get(sequence, [])[:length]

    @property
    def used(self) -> int:
        return len({cell for cells in self.sequences.values() for cell in cells})


@given(_STEPS)
def test_whatever_is_grown_shared_and_cut_the_ledger_counts_each_held_cell_once(
    steps: list[tuple[str, int, int, int]],
) -> None:
    ledger, reference = Ledger(1000), _Reference()
    for what, sequence, count, target in steps:
        if what == "grow":
            ledger.grow(sequence, count)
            reference.grow(sequence, count)
        elif what == "cut":
            ledger.cut(sequence, count)
            reference.cut(sequence, count)
        elif target != sequence and not ledger.length(target):
            ledger.share(sequence, target, count)
            reference.share(sequence, target, count)
        assert ledger.used == reference.used
        assert ledger.free == 1000 - reference.used
        for name in range(5):
            assert ledger.length(name) == len(reference.sequences.get(name, []))
    for name in range(5):
        ledger.cut(name, 0)
    assert (ledger.used, len(ledger)) == (0, 0)


def test_cells_that_are_shared_stay_taken_until_their_last_holder_leaves() -> None:
    ledger = Ledger(100)
    ledger.grow(0, 30)
    ledger.share(0, 1, 20)
    ledger.grow(1, 5)
    assert ledger.used == 35
    ledger.cut(0, 0)
    assert ledger.used == 25
    ledger.cut(1, 0)
    assert ledger.free == 100


def test_a_clear_leaves_nothing_taken() -> None:
    ledger = Ledger(10)
    ledger.grow(3, 7)
    ledger.clear()
    assert (ledger.used, ledger.length(3)) == (0, 0)


def _logits(model: Llama, token: int, position: int, sequence: int) -> np.ndarray:
    rows = model.rows
    rows.tokens[0], rows.positions[0], rows.sequences[0], rows.wanted[0] = token, position, sequence, 1
    model.run(1)
    return model.logits(0).copy()


def test_cells_that_were_read_out_and_written_back_give_the_same_logits_to_the_bit(wide: Llama) -> None:
    wide.clear()
    cells = Cells(wide, scratch=7)
    tokens = list(range(1000, 1024))
    wide.decode(tokens, 0)
    cells.ledger.grow(0, len(tokens))
    wanted = _logits(wide, 5, len(tokens), 0)
    cells.drop(0, len(tokens))
    head, tail = cells.read(0, 0, 10), cells.read(0, 10, 24)
    assert cells.ledger.used == 24
    cells.drop(0)
    assert cells.write(0, head, 0, 10)
    assert cells.write(0, tail, 10, 24)
    assert cells.ledger.length(0) == 24
    assert np.array_equal(_logits(wide, 5, len(tokens), 0), wanted)


def test_a_part_of_a_segment_can_be_written_back_alone(wide: Llama) -> None:
    wide.clear()
    cells = Cells(wide, scratch=7)
    wide.decode(list(range(1000, 1024)), 0)
    cells.ledger.grow(0, 24)
    blob = cells.read(0, 0, 24)
    cells.drop(0, 9)
    wanted = _logits(wide, 5, 9, 0)
    cells.drop(0)
    assert cells.write(0, blob, 0, 9)
    assert np.array_equal(_logits(wide, 5, 9, 0), wanted)


def test_a_segment_that_does_not_fit_changes_nothing(wide: Llama) -> None:
    wide.clear()
    cells = Cells(wide, scratch=7)
    count = wide.batch
    at = 0
    while at + count <= wide.context:
        wide.decode([1000] * count, at)
        at += count
    cells.ledger.grow(0, at)
    blob = cells.read(0, 0, at)
    before = cells.ledger.used
    assert not cells.write(1, blob, 0, at)
    assert cells.ledger.used == before
    assert cells.ledger.length(1) == 0
    cells.clear()
    assert cells.write(1, blob, 0, at)


def test_sequences_of_one_beginning_go_on_apart_from_shared_cells(wide: Llama) -> None:
    wide.clear()
    cells = Cells(wide, scratch=7)
    wide.decode(list(range(1000, 1010)), 0)
    cells.ledger.grow(0, 10)
    alone = _logits(wide, 5, 10, 0)
    cells.drop(0, 10)
    cells.share(0, 1, 10)
    cells.drop(0)
    assert cells.ledger.used == 10
    assert np.array_equal(_logits(wide, 5, 10, 1), alone)


def test_overwriting_what_nobody_holds_changes_nothing_for_those_who_hold_something(wide: Llama) -> None:
    wide.clear()
    cells = Cells(wide, scratch=7)
    wide.decode(list(range(1000, 1020)), 0)
    cells.ledger.grow(0, 20)
    cells.share(0, 1, 12)
    _logits(wide, 7, 12, 1)
    cells.ledger.grow(1, 1)
    held = [cells.read(0, 0, 20), cells.read(1, 0, 13)]
    assert not cells.overwrite(len(held[0]) // 2)
    assert cells.overwrite(2 * len(held[0]))
    assert [cells.read(0, 0, 20), cells.read(1, 0, 13)] == held
    assert (cells.ledger.used, cells.ledger.length(0), cells.ledger.length(1)) == (21, 20, 13)
    cells.drop(0)
    assert cells.ledger.used == 13
    assert cells.read(1, 0, 13) == held[1]

"""The coarse copy of the vectors: as exact as brute force, of a known epoch, and never believed when it is damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.knowledge.coarse import FILE, NEVER, Coarse
from edge_runtime.knowledge.codes import scaled
from edge_runtime.knowledge.records import Matrix, VectorBlock
from edge_runtime.knowledge.scan_file import SEGMENT

WIDTH = 64


def units(seed: int, count: int, width: int = WIDTH) -> Matrix:
    rows = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def block(document: int, vectors: Matrix, *, collection: int = 1, windows: int = 1) -> VectorBlock:
    """Rows of one document; each chunk has so many windows, and its id tells its document."""
    count = len(vectors)
    chunks = document * 1_000_000 + 1 + np.arange(count) // windows
    return VectorBlock(
        np.arange(count) + 1, chunks, np.full(count, document), np.full(count, collection), vectors
    )  # fmt: skip


def brute(blocks: list[VectorBlock], vector: Matrix, count: int) -> dict[int, float]:
    best: dict[int, float] = {}
    rows = [
        (float(row @ vector), int(chunk)) for one in blocks for row, chunk in zip(one.rows, one.chunks, strict=True)
    ]
    for cosine, chunk in sorted(rows, reverse=True)[:count]:
        best.setdefault(chunk, cosine)
    return best


def asked(coarse: Coarse, vector: Matrix, count: int = 10, **given: object) -> dict[int, float]:
    found = coarse.nearest(vector, count, epoch=coarse.epoch, **{"collection": 1, **given})  # type: ignore[arg-type]
    assert found is not None
    return found


def alike(found: dict[int, float], true: dict[int, float]) -> bool:
    """The same chunks but for ties, in the order of their cosines."""
    values = list(found.values())
    return (
        values == sorted(values, reverse=True)
        and np.allclose(values, list(true.values())[: len(values)], atol=1e-4)
        and len(found) == len(true)
    )


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Coarse]:
    opened = Coarse.open(tmp_path / "scan", WIDTH)
    opened.rebuild([], 0)
    yield opened
    opened.close()


@dataclass(frozen=True)
class Step:
    document: int
    count: int
    windows: int
    collection: int
    drop: list[int]


@dataclass(frozen=True)
class Ask:
    """A question, and what is done to the copy before it."""

    count: int
    seed: int
    compact: bool
    reopen: bool


ASKS = st.builds(Ask, count=st.integers(1, 60), seed=st.integers(0, 99), compact=st.booleans(), reopen=st.booleans())
STEPS = st.lists(
    st.builds(
        Step,
        document=st.integers(1, 6),
        count=st.integers(0, 40),
        windows=st.integers(1, 3),
        collection=st.integers(1, 2),
        drop=st.lists(st.integers(1, 6), max_size=3),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, ask=ASKS)
def test_whatever_was_added_and_dropped_it_finds_what_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], ask: Ask
) -> None:
    directory = tmp_path_factory.mktemp("scan")
    coarse = Coarse.open(directory, WIDTH)
    coarse.rebuild([], 0)
    held: dict[int, VectorBlock] = {}
    for epoch, step in enumerate(steps, 1):
        dropped = {*step.drop, step.document}
        held = {key: one for key, one in held.items() if key not in dropped}
        vectors = units(ask.seed + epoch, step.count)
        held[step.document] = block(step.document, vectors, collection=step.collection, windows=step.windows)
        coarse.append(held[step.document], epoch=epoch, dropped=dropped)
    if ask.reopen:
        coarse.close()
        coarse = Coarse.open(directory, WIDTH)
    if ask.compact:
        coarse.compact()
    assert coarse.epoch == len(steps)
    assert coarse.rows == sum(len(one.chunks) for one in held.values())
    vector = units(1000 + ask.seed, 1)[0]
    for collection in (1, 2, 3):
        inside = {key: one for key, one in held.items() if collection in one.collections}
        assert alike(
            asked(coarse, vector, ask.count, collection=collection), brute([*inside.values()], vector, ask.count)
        )
        for documents in (frozenset[int](), frozenset({2, 3, 77}), frozenset({1, 2**40})):
            some = [one for key, one in inside.items() if key in documents]
            found = asked(coarse, vector, ask.count, collection=collection, documents=documents)
            assert alike(found, brute(some, vector, ask.count))
    coarse.close()


@pytest.mark.parametrize("width", [3, 64, 100, 384, 1000])
def test_vectors_of_any_width_are_scored_to_four_digits_and_more(tmp_path: Path, width: int) -> None:
    coarse = Coarse.open(tmp_path, width)
    rows = block(5, units(1, 700, width))
    coarse.rebuild([rows], 3)
    vector = units(2, 1, width)[0]
    found = asked(coarse, vector, 700)
    true = brute([rows], vector, 700)
    assert found.keys() == true.keys()
    assert max(abs(found[key] - true[key]) for key in true) < 1e-4
    coarse.close()


def test_in_many_rows_the_best_ten_are_the_true_ones_and_filters_cost_none(tmp_path: Path) -> None:
    width = 384
    texts = units(1, 1500, width)
    vectors = texts[np.arange(40_000) % 1500] + 0.0247 * units(2, 40_000, width) * width**0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blocks = [block(at + 1, vectors[at * 400 : at * 400 + 400]) for at in range(100)]
    assert len(vectors) > 2 * SEGMENT
    coarse = Coarse.open(tmp_path, width)
    coarse.rebuild(blocks, 1)
    hits = 0
    for query in texts[:50] * 0.6 + units(4, 50, width) * 0.8:
        vector = query / np.linalg.norm(query)
        hits += len(asked(coarse, vector).keys() & brute_rows(blocks, vector))
        few = asked(coarse, vector, documents=frozenset({7, 93}))
        assert alike(few, brute([blocks[6], blocks[92]], vector, 10))
        many = asked(coarse, vector, documents=frozenset(range(1, 51)))
        assert len(many.keys() & brute_rows(blocks[:50], vector)) >= 9
    assert hits >= 0.99 * 500
    coarse.close()


def brute_rows(blocks: list[VectorBlock], vector: Matrix) -> set[int]:
    cosines = np.concatenate([one.rows for one in blocks]) @ vector
    chunks = np.concatenate([one.chunks for one in blocks])
    return set(chunks[np.argsort(-cosines)[:10]].tolist())


def test_the_same_vector_ten_thousand_times_is_found_as_often_as_asked_for(coarse: Coarse) -> None:
    vector = units(1, 1)[0]
    coarse.append(block(1, np.repeat(vector[None], 10_000, axis=0)), epoch=1)
    coarse.append(block(2, units(2, 3000)), epoch=2)
    found = asked(coarse, vector, 12)
    assert len(found) == 12
    assert all(cosine == pytest.approx(1, abs=1e-4) for cosine in found.values())


def test_vectors_of_zeros_and_of_no_numbers_do_no_harm(coarse: Coarse) -> None:
    odd = np.zeros((3, WIDTH), np.float32)
    odd[1] = np.nan
    odd[2, 0] = np.inf
    coarse.append(block(1, odd), epoch=1)
    coarse.append(block(2, units(1, 5)), epoch=2)
    found = asked(coarse, units(1, 5)[2], 8)
    assert next(iter(found)) == 2_000_003
    assert len(found) == 8
    assert np.isfinite(list(found.values())).all()


# ---- epochs ----------------------------------------------------------------------------------------------------------


def test_nothing_is_said_at_an_epoch_that_the_copy_is_not_at(coarse: Coarse) -> None:
    vector = units(1, 1)[0]
    assert coarse.nearest(vector, 5, epoch=0, collection=1) == {}
    assert coarse.nearest(vector, 5, epoch=1, collection=1) is None
    coarse.append(block(1, units(1, 5)), epoch=2)
    assert (coarse.epoch, coarse.ready(2)) == (0, False)
    coarse.append(None, epoch=1)
    assert (coarse.epoch, coarse.ready(2)) == (2, True)
    assert len(asked(coarse, vector)) == 5


def test_a_search_that_began_before_an_addition_sees_its_own_epoch(coarse: Coarse) -> None:
    vector = units(1, 1)[0]
    coarse.append(block(1, units(1, 5)), epoch=1)
    coarse.append(block(2, units(2, 5)), epoch=2)
    before = coarse.nearest(vector, 10, epoch=1, collection=1)
    assert before is not None
    assert {chunk // 1_000_000 for chunk in before} == {1}
    coarse.drop({1}, epoch=3)
    assert coarse.nearest(vector, 10, epoch=2, collection=1) is None
    assert {chunk // 1_000_000 for chunk in asked(coarse, vector)} == {2}


def test_a_rebuild_catches_up_with_what_changes_meanwhile(coarse: Coarse) -> None:
    first, second, third = (block(key, units(key, 30)) for key in (1, 2, 3))

    def rows() -> Iterator[VectorBlock]:
        yield first
        coarse.append(third, epoch=8)
        coarse.drop({1}, epoch=9)
        coarse.rebuild([third], 77)  # one at a time: this one does nothing
        yield second

    coarse.rebuild(rows(), 7)
    assert coarse.epoch == 9
    vector = units(9, 1)[0]
    assert alike(asked(coarse, vector, 100), brute([second, third], vector, 100))


def test_a_change_that_never_comes_leaves_the_copy_behind_until_it_is_rebuilt(coarse: Coarse) -> None:
    for epoch in range(2, 200):
        coarse.append(block(epoch, units(epoch, 2)), epoch=epoch)
    assert coarse.epoch == 0
    assert len(coarse._changes) <= 64
    coarse.rebuild([block(1, units(1, 3))], 199)
    assert coarse.ready(199)
    assert coarse.rows == 3


# ---- what is on the disk ---------------------------------------------------------------------------------------------


def test_what_was_dropped_is_gone_from_the_disk(coarse: Coarse, tmp_path: Path) -> None:
    secret = block(2, units(5, 40))
    numbers = scaled(secret.rows)
    traces = [numbers.high[3].tobytes(), numbers.low[3].tobytes(), secret.chunks[7:9].astype("<i8").tobytes()]
    coarse.append(block(1, units(1, 40)), epoch=1)
    coarse.append(secret, epoch=2)
    coarse.append(block(3, units(3, 40)), epoch=3)
    data = (tmp_path / "scan" / FILE).read_bytes()
    assert all(trace in data for trace in traces)
    coarse.drop({2}, epoch=4)
    data = (tmp_path / "scan" / FILE).read_bytes()
    assert not any(trace in data for trace in traces)
    assert [path.name for path in (tmp_path / "scan").iterdir()] == [FILE]
    assert {chunk // 1_000_000 for chunk in asked(coarse, units(6, 1)[0], 100)} == {1, 3}


def test_room_of_dropped_rows_is_given_back(coarse: Coarse) -> None:
    kept = block(99, units(99, 1000))
    coarse.append(kept, epoch=1)
    for epoch in range(2, 42):
        coarse.append(block(epoch, units(epoch, 1000)), epoch=epoch, dropped={epoch - 1})
    fresh = coarse.rows * (2 * WIDTH + WIDTH // 8 + 24)
    assert coarse.rows == 2000
    assert coarse.bytes < 5 * fresh
    coarse.compact()
    assert coarse.bytes < 2 * fresh
    vector = units(7, 1)[0]
    assert alike(asked(coarse, vector), brute([kept, block(41, units(41, 1000))], vector, 10))


def test_what_was_added_is_there_when_it_is_opened_again(coarse: Coarse, tmp_path: Path) -> None:
    rows = block(1, units(1, 300))
    coarse.append(rows, epoch=1)
    coarse.close()
    assert (coarse.epoch, coarse.bytes, coarse.ready(1)) == (NEVER, 0, False)
    again = Coarse.open(tmp_path / "scan", WIDTH)
    vector = units(2, 1)[0]
    assert alike(asked(again, vector), brute([rows], vector, 10))
    again.close()


@pytest.mark.parametrize("at", range(0, 60 + 4 * WIDTH + 16, 13))
def test_a_header_with_one_flipped_bit_is_not_believed(coarse: Coarse, tmp_path: Path, at: int) -> None:
    coarse.append(block(1, units(1, 20)), epoch=1)
    coarse.close()
    path = tmp_path / "scan" / FILE
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << at % 8
    path.write_bytes(data)
    again = Coarse.open(tmp_path / "scan", WIDTH)
    assert (again.epoch, again.ready(1)) == (NEVER, False)
    again.rebuild([block(1, units(1, 20))], 1)
    assert again.ready(1)
    again.close()


@pytest.mark.parametrize("left", [0, 10, 300, 4096, 5000, 200_000])
def test_a_truncated_file_is_not_believed(coarse: Coarse, tmp_path: Path, left: int) -> None:
    coarse.append(block(1, units(1, 20)), epoch=1)
    coarse.close()
    os.truncate(tmp_path / "scan" / FILE, left)
    again = Coarse.open(tmp_path / "scan", WIDTH)
    assert again.epoch == NEVER
    again.close()


def test_a_file_of_another_width_or_program_is_not_believed(coarse: Coarse, tmp_path: Path) -> None:
    coarse.append(block(1, units(1, 20)), epoch=1)
    coarse.close()
    wider = Coarse.open(tmp_path / "scan", WIDTH * 2)
    assert wider.epoch == NEVER
    wider.close()
    (tmp_path / "scan" / FILE).write_bytes(os.urandom(2_000_000))
    other = Coarse.open(tmp_path / "scan", WIDTH)
    assert (other.epoch, other.trouble) == (NEVER, "")
    other.close()


def test_a_copy_of_another_history_of_the_database_is_not_believed(coarse: Coarse, tmp_path: Path) -> None:
    coarse.append(block(1, units(1, 20)), epoch=1)
    coarse.renew(7)
    coarse.append(block(2, units(2, 20)), epoch=2)
    coarse.compact()
    coarse.close()
    for lineage, at, epoch in ((0, 2, NEVER), (8, 2, NEVER), (7, 1, NEVER), (7, 3, NEVER), (7, 2, 2), (7, None, 2)):
        again = Coarse.open(tmp_path / "scan", WIDTH, lineage=lineage, epoch=at)
        assert again.epoch == epoch
        again.close()


def test_what_cannot_be_opened_is_said_and_put_right_by_a_rebuild(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to(FILE)
    coarse = Coarse.open(tmp_path, WIDTH)
    assert "searches take longer" in coarse.trouble
    coarse.append(block(1, units(1, 2)), epoch=1)
    assert coarse.epoch == NEVER
    coarse.rebuild([block(1, units(1, 2))], 1)
    assert (coarse.ready(1), coarse.trouble) == (True, "")
    coarse.close()

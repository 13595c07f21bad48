"""Plans, admissions and victims: nobody waits without end, nobody gets what is not there."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_runtime.engine.costs import TILE, StepCost
from edge_runtime.engine.messages import CLASSES, Class
from edge_runtime.engine.scheduler import (
    CLASS_PATIENCE,
    LEAST_ROWS,
    MARGIN,
    SKIP_PATIENCE,
    WIDE,
    Limits,
    Plan,
    Stream,
    Waiting,
    admit,
    plan,
    victim,
)

LIMITS = Limits(128, {"realtime": 50.0, "interactive": 100.0, "batch": 400.0})


def _milliseconds(rows: int, cells: int) -> float:
    base, row, cell = ((5.0, 1.0, 1.5), (9.0, 3.2, 0.9), (30.0, 2.4, 0.4))[0 if rows == 1 else 1 if rows < TILE else 2]
    return base + row * rows + cell * cells / 1000


def _cost(seed: int = 0) -> StepCost:
    chance, cost = random.Random(seed), StepCost()
    for _ in range(300):
        rows = chance.choice([1, 2, 4, 8, 16, 32, 48, 64, 96, 128])
        cells = rows * chance.randrange(1, 3000)
        cost.observe(rows, cells, _milliseconds(rows, cells) * chance.gauss(1, 0.03))
    return cost


COST = _cost()
_CLASS = st.sampled_from(CLASSES)


@st.composite
def _streams(draw: st.DrawFn, *, adapters: tuple[str, ...] = ("", "a", "b"), least: int = 0) -> list[Stream]:
    found = []
    for slot in range(draw(st.integers(least, 10))):
        arrived = draw(st.floats(0, 50))
        reads = draw(st.booleans())
        found.append(
            Stream(
                slot=slot,
                priority=draw(_CLASS),
                pending=draw(st.integers(1, 600)) if reads else 1,
                evaluated=draw(st.integers(0, 900)),
                reads=reads,
                arrived=arrived,
                last_step=draw(st.floats(arrived, 60)),
                adapter=draw(st.sampled_from(adapters)),
            )
        )
    return found


def _chosen(streams: list[Stream], made: Plan) -> list[tuple[Stream, int]]:
    by_slot = {stream.slot: stream for stream in streams}
    return [(by_slot[slot], count) for slot, count in made.rows]


@given(_streams(), st.integers(12, 200))
def test_a_step_holds_what_fits_into_it_of_one_adapter_and_each_stream_once(streams: list[Stream], batch: int) -> None:
    made = plan(streams, COST, replace(LIMITS, batch=batch), 60.0)
    chosen = _chosen(streams, made)
    assert bool(streams) == bool(chosen)
    assert len({stream.slot for stream, _ in chosen}) == len(chosen)
    assert {stream.adapter for stream, _ in chosen} <= {made.adapter}
    assert sum(count for _, count in chosen) + made.padding <= batch
    for stream, count in chosen:
        assert 1 <= count <= stream.pending
        assert stream.reads or count == 1


@given(_streams(least=1))
def test_with_a_prompt_to_read_every_writer_of_the_adapter_has_its_row(streams: list[Stream]) -> None:
    made = plan(streams, COST, LIMITS, 60.0)
    mine = [stream for stream in streams if stream.adapter == made.adapter]
    assume(any(stream.reads for stream in mine))
    served = {slot for slot, _ in made.rows}
    assert {stream.slot for stream in mine if not stream.reads} <= served


@given(_streams(least=1))
def test_a_step_beside_writers_takes_no_longer_than_their_target_or_the_fewest_rows(streams: list[Stream]) -> None:
    made = plan(streams, COST, LIMITS, 60.0)
    chosen = _chosen(streams, made)
    writers = [stream for stream in streams if not stream.reads]
    groups = {stream.adapter for stream in writers}
    read = sum(count for stream, count in chosen if stream.reads)
    assume(writers and read)
    budget = min(LIMITS.target(stream.priority) for stream in writers) / len(groups) * MARGIN
    cells = sum(count * (stream.evaluated + (count // 2 if stream.reads else 1)) for stream, count in chosen)
    rows = sum(count for _, count in chosen)
    assert COST.predict(rows, cells) <= budget * 1.02 or read <= LEAST_ROWS


@given(_streams(adapters=("",), least=1))
def test_with_nobody_writing_a_prompt_takes_a_whole_step(streams: list[Stream]) -> None:
    readers = [replace(stream, reads=True, arrived=float(place)) for place, stream in enumerate(streams)]
    made = plan(readers, COST, LIMITS, 60.0)
    assert sum(count for _, count in made.rows) == min(sum(stream.pending for stream in readers), LIMITS.batch)


@given(_streams(adapters=("",), least=2))
def test_prompts_that_came_together_all_begin_to_write_with_one_step(streams: list[Stream]) -> None:
    readers = {
        stream.slot: replace(stream, reads=True, pending=stream.pending % 90 + 1, arrived=1.0, priority="interactive")
        for stream in streams
    }
    first: set[int] = set()
    while not first:
        made = plan(list(readers.values()), COST, LIMITS, 60.0)
        assert made.rows
        for slot, count in made.rows:
            readers[slot] = replace(readers[slot], pending=readers[slot].pending - count)
            if not readers[slot].pending:
                first.add(slot)
    assert first == set(readers)


def test_an_urgent_prompt_begins_to_write_while_one_that_came_with_it_for_the_batch_is_read() -> None:
    urgent = Stream(slot=0, priority="realtime", pending=20, evaluated=0, reads=True, arrived=1.0, last_step=1.0)
    other = replace(urgent, slot=1, priority="batch", pending=600)
    assert dict(plan([urgent, other], COST, LIMITS, 1.1).rows)[0] == 20


@given(st.integers(0, 700), st.integers(0, 10), st.integers(1, 200))
def test_no_step_of_a_lone_reading_crosses_its_border_or_breaks_a_tile(length: int, tiles: int, batch: int) -> None:
    border = length // TILE * TILE
    assume(border)
    evaluated = min(tiles * TILE, border)
    assume(evaluated < length)
    stream = Stream(
        slot=0,
        priority="interactive",
        pending=length - evaluated,
        evaluated=evaluated,
        reads=True,
        arrived=0.0,
        last_step=0.0,
        border=border,
    )
    ((_, count),) = plan([stream], COST, replace(LIMITS, batch=batch), 1.0).rows
    end = evaluated + count
    assert evaluated >= border or end <= border
    if batch >= TILE and end <= border:
        assert count % TILE == 0
    elif batch >= TILE:
        assert end == length


class _Run:
    """Carries plans out on streams whose prompts end and who then write for ever."""

    def __init__(self, streams: list[Stream], limits: Limits = LIMITS) -> None:
        self.streams = {stream.slot: stream for stream in streams}
        self.limits = limits
        self.now = 100.0
        self.plans: list[Plan] = []

    def step(self) -> Plan:
        made = plan(list(self.streams.values()), COST, self.limits, self.now)
        self.now += 0.05
        for slot, count in made.rows:
            stream = self.streams[slot]
            left = stream.pending - count if stream.reads else 1
            self.streams[slot] = replace(
                stream,
                pending=max(left, 1),
                reads=stream.reads and left > 0,
                evaluated=min(stream.evaluated + count, 2000),
                last_step=self.now,
            )
        self.plans.append(made)
        return made


@given(_streams(least=1))
def test_every_writer_has_its_row_again_within_as_many_steps_as_there_are_streams_and_adapters(
    streams: list[Stream],
) -> None:
    run = _Run([replace(stream, pending=1, reads=False) for stream in streams])
    since = dict.fromkeys(run.streams, 0)
    groups = len({stream.adapter for stream in streams})
    most = len(streams) * groups + groups
    for _ in range(60):
        served = {slot for slot, _ in run.step().rows}
        since = {slot: 0 if slot in served else waited + 1 for slot, waited in since.items()}
        assert max(since.values()) <= most


@given(_streams(least=1))
def test_every_prompt_is_read_to_its_end_whoever_writes_beside_it(streams: list[Stream]) -> None:
    run = _Run(streams)
    total = sum(stream.pending for stream in streams if stream.reads)
    for _ in range(3 * (total // LEAST_ROWS + len(streams)) + 10):
        if not any(stream.reads for stream in run.streams.values()):
            break
        run.step()
    assert not any(stream.reads for stream in run.streams.values())


def test_writers_of_one_adapter_go_on_while_prompts_of_another_stand_in_line() -> None:
    base = Stream(slot=0, priority="interactive", pending=1, evaluated=50, reads=False, arrived=90.0, last_step=99.9)
    prompts = [
        replace(base, slot=1 + number, reads=True, pending=400, evaluated=0, arrived=80.0, last_step=80.0, adapter="a")
        for number in range(5)
    ]
    run = _Run([base, *prompts])
    for _ in range(20):
        run.step()
    served = [made.adapter for made in run.plans]
    longest = max(len(part) for part in "".join("x" if one == "a" else " " for one in served).split(" "))
    assert longest <= 2, served


def test_adapters_take_turns() -> None:
    base = Stream(slot=0, priority="interactive", pending=1, evaluated=50, reads=False, arrived=0.0, last_step=1.0)
    run = _Run([replace(base, slot=slot, adapter=name) for slot, name in enumerate(("", "a", "b", "", "a"))])
    for _ in range(30):
        run.step()
    seen = Counter(made.adapter for made in run.plans)
    assert max(seen.values()) <= 2 * min(seen.values())


def test_the_prompt_of_the_more_urgent_class_is_read_first() -> None:
    base = Stream(slot=0, priority="batch", pending=100, evaluated=0, reads=True, arrived=0.0, last_step=0.0)
    made = plan([base, replace(base, slot=1, priority="realtime", pending=500)], COST, LIMITS, 1.0)
    assert made.rows[0][0] == 1


def test_of_two_prompts_the_shorter_is_read_first_until_the_longer_has_waited_long() -> None:
    long = Stream(slot=0, priority="interactive", pending=600, evaluated=0, reads=True, arrived=0.0, last_step=0.0)
    short = replace(long, slot=1, pending=100)
    assert plan([long, short], COST, LIMITS, 1.0).rows[0][0] == 1
    late = replace(short, arrived=1000.0)
    assert plan([long, late], COST, LIMITS, 1000.0).rows[0][0] == 0


def test_padding_is_only_added_where_it_makes_the_step_cheaper() -> None:
    cost = StepCost()
    for _ in range(50):
        for rows, milliseconds in ((1, 17.0), (4, 60.0), (8, 30.0)):
            cost.observe(rows, rows * 50, milliseconds)
    base = Stream(slot=0, priority="realtime", pending=1, evaluated=50, reads=False, arrived=0.0, last_step=0.0)
    made = plan([replace(base, slot=slot) for slot in range(4)], cost, LIMITS, 1.0)
    assert (len(made.rows), made.padding) == (4, WIDE - 4)
    assert plan([replace(base, slot=slot) for slot in range(4)], COST, LIMITS, 1.0).padding == 0


# ---- admission -----------------------------------------------------------------------------------------------------


@st.composite
def _waiting(draw: st.DrawFn) -> list[Waiting]:
    return [
        Waiting(
            key=key,
            priority=draw(_CLASS),
            arrived=draw(st.floats(0, 100)),
            cells=draw(st.integers(1, 500)),
            held=draw(st.booleans()),
        )
        for key in range(draw(st.integers(0, 10)))
    ]


@given(_waiting(), _streams(), st.integers(0, 1000), st.integers(0, 8))
def test_nobody_begins_without_a_slot_and_cells_and_only_lower_classes_make_room(
    waiting: list[Waiting], running: list[Stream], free: int, slots: int
) -> None:
    made = admit(waiting, running, free=free, slots=slots, now=100.0)
    begun = [next(one for one in waiting if one.key == key) for key in made.begin]
    parked = [stream for stream in running if stream.slot in made.park]
    assert len(set(made.begin)) == len(made.begin)
    assert len(set(made.park)) == len(made.park) == len(parked)
    assert not any(one.held for one in begun)
    assert len(begun) <= slots + len(parked)
    assert sum(one.cells for one in begun) <= free + sum(
        stream.evaluated + stream.pending * stream.reads for stream in parked
    )
    lowest = max((CLASSES.index(stream.priority) for stream in parked), default=0)
    assert not parked or min(CLASSES.index(one.priority) for one in begun) < lowest
    for stream in parked:
        assert any(CLASSES.index(one.priority) < CLASSES.index(stream.priority) for one in begun)
    # Whoever stays was no better to park: of one class the latest goes first.
    for stream in parked:
        for other in running:
            if other not in parked and other.priority == stream.priority:
                assert other.arrived <= stream.arrived


def _ask(
    key: int, priority: Class = "interactive", *, arrived: float = 0.0, cells: int = 10, held: bool = False
) -> Waiting:
    return Waiting(key=key, priority=priority, arrived=arrived, cells=cells, held=held)


def test_classes_come_first_and_then_arrival() -> None:
    waiting = [_ask(0, "batch"), _ask(1, arrived=2.0), _ask(2, arrived=1.0), _ask(3, "realtime", arrived=3.0)]
    assert admit(waiting, [], free=1000, slots=9, now=3.0).begin == (3, 2, 1, 0)


def test_a_request_that_has_waited_for_its_patience_goes_before_a_newer_one_of_the_next_class() -> None:
    for now, first in ((CLASS_PATIENCE / 2, 1), (CLASS_PATIENCE + 2, 0)):
        waiting = [_ask(0, "batch"), _ask(1, "interactive", arrived=now)]
        assert admit(waiting, [], free=1000, slots=1, now=now).begin == (first,)


def test_a_small_request_may_pass_a_large_one_for_a_while_only() -> None:
    waiting = [_ask(0, cells=500), _ask(1, arrived=0.1, cells=10)]
    assert admit(waiting, [], free=100, slots=2, now=SKIP_PATIENCE / 2).begin == (1,)
    assert admit(waiting, [], free=100, slots=2, now=SKIP_PATIENCE * 2).begin == ()


def test_a_request_that_is_held_stops_nobody_behind_it() -> None:
    waiting = [_ask(0, held=True), _ask(1, arrived=1.0)]
    assert admit(waiting, [], free=100, slots=1, now=50.0).begin == (1,)


def _running(slot: int, priority: Class, *, arrived: float = 0.0, cells: int = 100) -> Stream:
    return Stream(
        slot=slot, priority=priority, pending=1, evaluated=cells, reads=False, arrived=arrived, last_step=arrived
    )


def test_the_latest_of_the_lowest_class_makes_room_and_no_more_than_are_needed() -> None:
    running = [
        _running(0, "batch"),
        _running(1, "batch", arrived=2.0),
        _running(2, "interactive", arrived=5.0),
        _running(3, "batch", arrived=1.0),
    ]
    made = admit([_ask(0, "realtime", cells=150)], running, free=0, slots=1, now=6.0)
    assert (made.begin, made.park) == ((0,), (1, 3))


def test_nobody_is_parked_for_one_who_would_not_fit_even_so() -> None:
    made = admit([_ask(0, "realtime", cells=500)], [_running(0, "batch")], free=0, slots=1, now=0.0)
    assert (made.begin, made.park) == ((), ())


@pytest.mark.parametrize("priority", CLASSES)
def test_nobody_is_parked_for_one_of_the_same_class(priority: Class) -> None:
    made = admit([_ask(0, priority, cells=50)], [_running(0, priority)], free=0, slots=0, now=1000.0)
    assert made.park == ()


def test_a_lack_of_slots_alone_parks_a_lower_class_too() -> None:
    made = admit([_ask(0, "realtime", cells=5)], [_running(7, "batch")], free=900, slots=0, now=0.0)
    assert (made.begin, made.park) == ((0,), (7,))


@given(_streams())
def test_the_victim_is_of_the_lowest_class_and_the_latest_of_it_and_never_the_last_one(running: list[Stream]) -> None:
    slot = victim(running)
    if len(running) < 2:
        assert slot is None
        return
    chosen = next(stream for stream in running if stream.slot == slot)
    lowest = max(CLASSES.index(stream.priority) for stream in running)
    assert CLASSES.index(chosen.priority) == lowest
    assert chosen.arrived == max(stream.arrived for stream in running if CLASSES.index(stream.priority) == lowest)


def test_nobody_makes_room_for_a_lower_class() -> None:
    running = [
        Stream(slot=slot, priority=priority, pending=1, evaluated=9, reads=False, arrived=1.0, last_step=1.0)
        for slot, priority in enumerate(CLASSES)
    ]
    assert [victim(running[:count], least=1, most_urgent=CLASSES[1]) for count in (1, 2, 3)] == [None, 1, 2]

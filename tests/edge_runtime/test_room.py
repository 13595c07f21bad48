"""Who is let in, in which order, and what becomes of the place of one that leaves."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.room import Room

SIZE, PLACES = 100, 3


@given(st.lists(st.tuples(st.integers(1, 250), st.integers(0, 4), st.booleans()), max_size=25))
def test_no_more_than_fits_is_inside_and_everybody_who_stays_gets_in(visits: list[tuple[int, int, bool]]) -> None:
    async def work() -> list[int]:
        room, inside, entered = Room(SIZE, PLACES), list[int](), list[int]()

        async def visit(number: int, size: int, turns: int) -> None:
            async with room.hold(size):
                entered.append(number)
                inside.append(min(size, SIZE))
                assert len(inside) <= PLACES
                assert sum(inside) <= SIZE
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    inside.remove(min(size, SIZE))

        tasks = [asyncio.create_task(visit(at, size, turns)) for at, (size, turns, _) in enumerate(visits)]
        await asyncio.sleep(0)
        for task, (_, _, leaves) in zip(tasks, visits, strict=True):
            if leaves:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5), room.hold(SIZE):
            pass
        for task, (_, _, leaves) in zip(tasks, visits, strict=True):
            assert leaves or task.exception() is None
        return entered

    entered = asyncio.run(work())
    assert entered == sorted(entered)


def test_what_is_larger_than_the_room_goes_in_alone() -> None:
    async def work() -> None:
        room = Room(SIZE, PLACES)
        async with room.hold(1):
            large = asyncio.create_task(room.hold(1000).__aenter__())
            await asyncio.sleep(0)
            assert not large.done()
        await large

    asyncio.run(work())

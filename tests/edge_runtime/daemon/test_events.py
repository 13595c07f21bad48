"""Events reach every listener, and a slow one holds nobody up."""

from __future__ import annotations

import asyncio

from edge_runtime.daemon.events import QUEUE, Events


async def _listen(events: Events, seen: list[str]) -> None:
    seen += [event.kind async for event in events.subscribe()]


def test_every_listener_gets_every_event_in_order() -> None:
    async def scene() -> list[list[str]]:
        events, seen = Events(), [[], []]
        tasks = [asyncio.create_task(_listen(events, one)) for one in seen]
        await asyncio.sleep(0)
        for kind in ("a", "b", "c"):
            events.publish(kind)
        events.close()
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(scene()) == [["a", "b", "c"]] * 2


def test_a_listener_that_does_not_keep_up_is_dropped_and_the_others_are_not() -> None:
    async def scene() -> tuple[int, int, int]:
        events = Events()
        slow = events.subscribe()
        first = asyncio.ensure_future(anext(slow))
        seen: list[str] = []
        quick = asyncio.create_task(_listen(events, seen))
        await asyncio.sleep(0)
        events.publish("first")
        await first
        for _ in range(QUEUE + 10):
            events.publish("x")
            await asyncio.sleep(0)
        listeners = events.listeners
        held = len([event async for event in slow])
        events.close()
        await quick
        return listeners, held, len(seen)

    assert asyncio.run(scene()) == (1, QUEUE, QUEUE + 11)


def test_a_listener_that_leaves_is_forgotten() -> None:
    async def scene() -> int:
        events = Events()
        task = asyncio.create_task(_listen(events, []))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return events.listeners

    assert asyncio.run(scene()) == 0

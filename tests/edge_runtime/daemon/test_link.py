"""The daemon's end of a child's socket pair, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.daemon.link import Link
from edge_runtime.engine.messages import FrameError, Frames, Ping, Pong, Stop, Up, decode_down, encode


async def arrived(parts: Sequence[bytes]) -> list[Up]:
    """What a link makes of bytes that come in these parts, until the other end closes."""
    ours, theirs = socket.socketpair()
    got: list[Up] = []
    link = await Link.open(ours, got.append)
    with theirs:
        for part in parts:
            theirs.sendall(part)
            await asyncio.sleep(0)
    await link.ended
    assert not link.is_open
    return got


@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.text(max_size=8), max_size=6), size=st.integers(1, 40))
def test_messages_arrive_whole_and_in_order_however_the_bytes_are_cut(names: list[str], size: int) -> None:
    sent: list[Up] = [Pong(id=name) for name in names]
    data = b"".join(map(encode, sent))
    assert asyncio.run(arrived([data[at : at + size] for at in range(0, len(data), size)])) == sent


@pytest.mark.parametrize("data", [struct.pack(">I", 2**31), struct.pack(">I", 3) + b"abc"])
def test_a_stream_that_cannot_be_followed_ends_with_what_is_wrong(data: bytes) -> None:
    with pytest.raises(FrameError):
        asyncio.run(arrived([encode(Pong(id="a")), data]))


def test_what_was_sent_before_closing_arrives_and_what_is_sent_after_is_dropped() -> None:
    async def talk() -> bytes:
        ours, theirs = socket.socketpair()
        link = await Link.open(ours, lambda _: None)
        link.send(Ping(id="a"))
        link.send(Stop())
        link.close()
        link.send(Ping(id="late"))
        await link.ended
        with theirs:
            return theirs.recv(1 << 16)

    assert [decode_down(body) for body in Frames().feed(asyncio.run(talk()))] == [Ping(id="a"), Stop()]


def test_a_child_that_dies_in_the_middle_of_a_message_ends_the_link_without_it() -> None:
    whole = encode(Pong(id="a"))
    assert asyncio.run(arrived([whole, whole[:-1]])) == [Pong(id="a")]

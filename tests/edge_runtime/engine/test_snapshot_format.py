"""A segment as bytes: read back as it was written, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.engine import snapshot_format
from edge_runtime.engine.snapshot_format import Entry

IDENTITY = snapshot_format.identify("weights abc, build 1, 30 layers, f16/f16, flash attention, rope 100000")


def written(entry: Entry, blob: bytes) -> bytes:
    return snapshot_format.encode(entry, IDENTITY, blob) + blob


def read(data: bytes) -> tuple[Entry, bytes] | None:
    """As a reader of files does it."""
    size = snapshot_format.header_size(data[: snapshot_format.HEAD_BYTES])
    if size is None:
        return None
    end = snapshot_format.HEAD_BYTES + size
    found = snapshot_format.decode(data[: snapshot_format.HEAD_BYTES], data[snapshot_format.HEAD_BYTES : end])
    if found is None or not snapshot_format.is_whole(found[0], data[end:]):
        return None
    return found[1], data[end:]


TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40)
ENTRIES = st.builds(
    lambda tokens, start, domain, adapter, label, blob: (
        Entry(
            snapshot_format.key_of(
                IDENTITY,
                domain=domain,
                adapter=adapter,
                tokens=tokens,
                start=start % len(tokens),
            ),
            domain,
            adapter,
            tuple(tokens),
            start % len(tokens),
            label,
            len(blob),
        ),
        blob,
    ),
    TOKENS,
    st.integers(0, 100),
    st.text(max_size=8),
    st.text(max_size=8),
    st.text(max_size=8),
    st.binary(max_size=200),
)


@given(ENTRIES)
def test_what_was_written_is_read_back(pair: tuple[Entry, bytes]) -> None:
    assert read(written(*pair)) == pair


@given(ENTRIES, st.data())
def test_any_flipped_bit_makes_it_unreadable_and_never_other_bytes(
    pair: tuple[Entry, bytes], data: st.DataObject
) -> None:
    whole = bytearray(written(*pair))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    assert read(bytes(whole)) is None


@given(ENTRIES, st.data())
def test_any_cut_or_growth_makes_it_unreadable(pair: tuple[Entry, bytes], data: st.DataObject) -> None:
    whole = written(*pair)
    assert read(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert read(whole + b"\0") is None


@given(st.binary(max_size=300))
def test_any_other_bytes_are_no_segment(data: bytes) -> None:
    assert read(data) is None


def test_each_part_of_the_identity_makes_another_key() -> None:
    one, other = snapshot_format.identify("a"), snapshot_format.identify("b")
    keys = {
        snapshot_format.key_of(one, domain="uid 1", adapter="", tokens=[1, 2, 3], start=0),
        snapshot_format.key_of(other, domain="uid 1", adapter="", tokens=[1, 2, 3], start=0),
        snapshot_format.key_of(one, domain="uid 2", adapter="", tokens=[1, 2, 3], start=0),
        snapshot_format.key_of(one, domain="uid ", adapter="1", tokens=[1, 2, 3], start=0),
        snapshot_format.key_of(one, domain="uid 1", adapter="", tokens=[1, 2], start=0),
        snapshot_format.key_of(one, domain="uid 1", adapter="", tokens=[1, 2, 4], start=0),
        snapshot_format.key_of(one, domain="uid 1", adapter="", tokens=[1, 2, 3], start=1),
    }
    assert len(keys) == 7

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from temporal_graph.redis.keys import (
    SLICES,
    Names,
    entity,
    key_bytes,
    key_of,
    ref_bytes,
    ref_from,
    ref_of,
    slice_of,
    time_bytes,
    time_of,
)
from temporal_graph.reference_values import key_order
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

INT64 = st.integers(ALWAYS_US, TIME_MAX_US)
TEXT = st.text(st.sampled_from("\0\x01aé\U0001f600"), max_size=4)
SHAPES = st.lists(st.sampled_from([INT64, TEXT]), min_size=1, max_size=3)


@given(st.lists(INT64, min_size=2, max_size=5))
def test_times_are_ordered_as_their_bytes(times: list[int]) -> None:
    """Sorting by bytes sorts by time, and the time comes back."""
    assert sorted(times) == [time_of(each) for each in sorted(map(time_bytes, times))]


@given(st.data())
def test_keys_are_ordered_as_their_bytes(data: st.DataObject) -> None:
    """Keys of one table come in the rule's order, whatever texts hold, and come back; none begins another."""
    shape = data.draw(SHAPES)
    keys = [tuple(data.draw(part) for part in shape) for _ in range(4)]
    assert sorted(keys, key=key_order) == [key_of(each) for each in sorted(map(key_bytes, keys))]
    for one in keys:
        for other in keys:
            assert one == other or not key_bytes(other).startswith(key_bytes(one))


def test_an_entity_stays_together() -> None:
    """A row, its lists and its slice's fence have one hash tag; entities spread over all slices."""
    names, rng = Names("ngabc"), random.Random(1)
    used = set()
    for _ in range(20_000):
        named = entity(3, key_bytes((rng.getrandbits(60),)))
        number, row = names.row(named)
        assert number == slice_of(named) == names.children(named, 2)[0]
        tag = row[: row.index(b"}") + 1]
        assert names.children(named, 2)[1] == row + b"\x02"
        assert names.fence(number).startswith(tag)
        used.add(number)
    assert len(used) == SLICES


@given(TEXT)
def test_a_reference_comes_back_and_lies_in_its_rows_slice(text: str) -> None:
    """So a tombstone is guarded by its row's fence, and is found from the bytes alone."""
    row = entity(3, key_bytes((text,)))
    ref = ref_of("people", row)
    assert ref_from(ref_bytes(ref)) == ref
    assert ref != ref_of("orders", row)
    names = Names("g")
    assert names.tombstone(ref)[0] == names.owned(ref)[0] == names.row(row)[0]
    assert names.tombstone(ref)[1] != names.owned(ref)[1]

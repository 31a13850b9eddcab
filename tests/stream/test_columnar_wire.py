from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import wire
from stream.columnar_wire import Blobs, Constant, Doubles, Varints, assemble, nested, total_lengths

INT64 = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(INT64, st.floats(allow_nan=False), st.binary(max_size=9), st.booleans())


@given(st.lists(ROW, max_size=20))
def test_columns_write_what_one_row_at_a_time_writes(rows: list[tuple[int, float, bytes, bool]]) -> None:
    """Constants, varints, doubles and blobs, masked or not, nested or not: each row's bytes are those of `wire`."""
    count = len(rows)
    numbers = np.array([row[0] for row in rows], np.int64)
    mask = np.array([row[3] for row in rows], np.bool_)
    inner = [Constant(b"c", count, mask), Varints(numbers, mask)]
    pieces = [
        Constant(b"head", count),
        Varints(numbers),
        Doubles(np.array([row[1] for row in rows], np.float64)),
        Blobs.of([row[2] for row in rows]),
        *nested(b"\x3a", inner, count, mask),
        Doubles(np.array([row[1] for row in rows], np.float64), mask),
    ]
    expected = [
        b"head" + wire.varint(number) + wire.pack_double(double) + blob
        + (b"\x3a" + wire.delimited(b"c" + wire.varint(number)) + wire.pack_double(double) if kept else b"")
        for number, double, blob, kept in rows
    ]  # fmt: skip
    assert assemble(pieces, count) == expected
    assert total_lengths(pieces, count).tolist() == [len(row) for row in expected]


@pytest.mark.parametrize("number", [0, 127, 128, 2**14 - 1, 2**14, 2**56, 2**63 - 1, -1, -(2**63)])
def test_varints_of_every_length(number: int) -> None:
    """One to ten bytes, beside neighbours of another length."""
    numbers = np.array([1, number, 300], np.int64)
    assert assemble([Varints(numbers)], 3) == [wire.varint(one) for one in numbers.tolist()]


def test_no_rows_give_no_bytes() -> None:
    """An empty batch is nothing special."""
    assert assemble([Constant(b"x", 0), Varints(np.empty(0, np.int64)), Blobs.of([])], 0) == []

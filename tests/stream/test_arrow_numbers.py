"""What an Arrow column of numbers stands for, at the limits of its types."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from stream.arrow_numbers import doubles, integers, is_number, plain

NAN = float("nan")


@pytest.mark.parametrize(
    ("array", "fits", "fraction", "inexact"),
    [
        (pa.array([1, -2, None], pa.int8()), [1, -2, 0], [], []),
        (pa.array([True, False, None]), [1, 0, 0], [], []),
        (pa.array([2**63 - 1, 2**63], pa.uint64()), [2**63 - 1, 0], [], [1]),
        (pa.array([3.0, None, 0.5, -0.5, 1e300]), [3, 0, 0, 0, 0], [2, 3], [4]),
        (pa.array([2.0**53 - 1, 2.0**53, -(2.0**53)]), [2**53 - 1, 0, 0], [], [1, 2]),
        (pa.array([2.0**24 - 1, 2.0**24], pa.float32()), [2**24 - 1, 0], [], [1]),
        (pa.array([np.float16(2047), np.float16(2048)], pa.float16()), [2047, 0], [], [1]),
        (pa.array([Decimal("3.00"), Decimal("3.01"), None], pa.decimal128(9, 2)), [3, 0, 0], [1], []),
        (pa.array([Decimal(-(2**63)), Decimal(2**63)], pa.decimal128(38, 0)), [-(2**63), 0], [], [1]),
        (pa.array([Decimal("1.5"), Decimal(-7)], pa.decimal32(5, 2)), [0, -7], [0], []),
        (pa.array([Decimal(1200)], pa.decimal128(5, -2)), [1200], [], []),
        (pa.array([], pa.decimal128(9, 2)), [], [], []),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_numbers_are_integers_or_say_why_not(
    array: pa.Array, fits: list[int], fraction: list[int], inexact: list[int]
) -> None:
    """The last integer that a type holds exactly is one, the next is not; fractions are told apart from them."""
    found = integers(array)
    assert found.values.tolist() == fits
    assert np.flatnonzero(found.fraction).tolist() == fraction
    assert np.flatnonzero(found.inexact).tolist() == inexact


def test_decimals_are_the_doubles_of_their_texts() -> None:
    """Also where Arrow's own cast gives a neighbor, and with more digits than a double has."""
    texts = ["1.10", "12.34", "-0.07", "1234567890123.45", "99999999999999999999.99"]
    array = pa.array([*map(Decimal, texts), None], pa.decimal128(38, 2))
    assert doubles(array).tolist() == [*map(float, texts), 0.0]


def test_nan_is_null_and_dictionaries_are_their_values() -> None:
    """As data frames write nulls and categories; other values stay as they are."""
    assert plain(pa.array([1.5, NAN, None])).to_pylist() == [1.5, None, None]
    assert plain(pa.array([1.5, NAN], pa.float32()).dictionary_encode()).to_pylist() == [1.5, None]
    assert plain(pa.array(["a", None, "a"]).dictionary_encode()).to_pylist() == ["a", None, "a"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(pa.uint8(), True), (pa.float16(), True), (pa.decimal256(9, 2), True), (pa.bool_(), False), (pa.string(), False)],
)
def test_what_is_a_number(kind: pa.DataType, expected: bool) -> None:
    """Integers, floats and decimals; neither yes or no nor a text."""
    assert is_number(kind) is expected

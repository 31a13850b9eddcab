"""Numbers of Arrow columns as what they stand for, however a tool wrote them to its file.

    3, 3.0, DECIMAL 3.00 ─► int64 3        DECIMAL 12.34 ─► the double nearest to 12.34        NaN ─► null

A data frame turns integers to floats where some are missing, a warehouse exports every NUMBER as a decimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream.values import INT64_MAX, INT64_MIN

_EXACT_MAX: Final = {16: 2**11 - 1, 32: 2**24 - 1, 64: 2**53 - 1}
"""Bits of a float -> the largest integer that no other one was rounded to."""
_DECIMAL_DIGITS_MAX: Final = 76


@dataclass(frozen=True, slots=True)
class Integers:
    """The integers of a column [N]: `values` int64, 0 where there is none; `fraction` is where a number is no integer,
    `inexact` where it does not fit int64 or is a float so large that it may have been another integer.
    """

    values: NDArray[np.int64]
    fraction: NDArray[np.bool_]
    inexact: NDArray[np.bool_]


def plain(array: pa.Array) -> pa.Array:
    """Return the values themselves: a dictionary's, decoded, and a null for NaN, as data frames write nulls."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def is_number(kind: pa.DataType) -> bool:
    """Whether values are integers, floats or decimals."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def doubles(array: pa.Array) -> NDArray[np.float64]:
    """Return numbers as float64 [N], 0 for null; a decimal is the double nearest to it, as if read from its text."""
    if pa.types.is_decimal(array.type):
        # Arrow's own cast multiplies in floating point: one value in ten comes out as the neighbor of the nearest.
        array = array.cast(pa.string())
    return _filled(array.cast(pa.float64(), safe=False), np.float64)


def integers(array: pa.Array) -> Integers:
    """Return numbers (or booleans) as integers, and where they are none."""
    kind, nowhere = array.type, np.zeros(len(array), np.bool_)
    if pa.types.is_decimal(kind):
        return _of_decimals(array)
    if pa.types.is_floating(kind):
        values = _filled(array, np.float64)
        inexact = np.abs(values) > _EXACT_MAX[kind.bit_width]
        fraction = ~inexact & (values != np.trunc(values))
        return Integers(np.where(inexact | fraction, 0.0, values).astype(np.int64), fraction, inexact)
    if pa.types.is_uint64(kind):
        unsigned = _filled(array, np.uint64)
        inexact = unsigned > np.uint64(INT64_MAX)
        return Integers(np.where(inexact, np.uint64(0), unsigned).astype(np.int64), nowhere, inexact)
    return Integers(_filled(array.cast(pa.int64()), np.int64), nowhere, nowhere)


def _of_decimals(array: pa.Array) -> Integers:
    # Widened, so that the limits of int64 can be compared with; the narrow decimals cannot be truncated either.
    wide = array.cast(pa.decimal256(_DECIMAL_DIGITS_MAX, max(array.type.scale, 0)))
    whole = pc.trunc(wide)
    fraction = pc.not_equal(whole, wide)
    beyond = pc.or_(
        pc.greater(whole, pa.scalar(Decimal(INT64_MAX))),
        pc.less(whole, pa.scalar(Decimal(INT64_MIN))),
    )
    fits = pc.if_else(pc.or_(fraction, beyond), pa.scalar(None, whole.type), whole).cast(pa.int64())
    return Integers(_filled(fits, np.int64), _filled(fraction, np.bool_), _filled(beyond, np.bool_))


def _filled(array: pa.Array, kind: Any) -> NDArray[Any]:
    filled = pc.fill_null(array, False if kind is np.bool_ else 0) if array.null_count else array
    return np.asarray(filled.to_numpy(zero_copy_only=False), kind)

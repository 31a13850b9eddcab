"""The time rule: what a question may know.

    event time (it happened) ─┐
                              ├─ max ─► visible time  <=  cutoff time   ◄═► visible
    known time (we knew)     ─┘

All times are int64 microseconds since the epoch, UTC; a float never enters. Each engine that has to evaluate the
comparison (C++, SQL, Redis) holds one copy of it and is tested against this one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

import numpy as np
from numpy.typing import NDArray

ALWAYS_US = -(2**63)
"""Both times of a row without time: before every cut-off, therefore always visible."""

TIME_MAX_US = 2**63 - 1
"""The last instant int64 microseconds can say."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Times = NDArray[np.int64]


@overload
def visible_time_us(event_time_us: int, known_time_us: int) -> int: ...
@overload
def visible_time_us(event_time_us: Times, known_time_us: Times | int) -> Times: ...
@overload
def visible_time_us(event_time_us: Times | int, known_time_us: Times) -> Times: ...
def visible_time_us(event_time_us: Times | int, known_time_us: Times | int) -> Times | int:
    """Return the later of the two clocks: ints for ints, an int64 array (broadcast) where either is an array.

    Raises:
        TypeError: a time is not an integer or not an int64 array.
        OverflowError: an integer does not fit int64.
    """
    event, known = _checked(event_time_us, "event_time_us"), _checked(known_time_us, "known_time_us")
    if isinstance(event, int) and isinstance(known, int):
        return max(event, known)
    return np.maximum(event, known)


@overload
def is_visible(event_time_us: int, known_time_us: int, cutoff_time_us: int) -> bool: ...
@overload
def is_visible(event_time_us: Times, known_time_us: Times | int, cutoff_time_us: Times | int) -> NDArray[np.bool_]: ...
@overload
def is_visible(event_time_us: Times | int, known_time_us: Times, cutoff_time_us: Times | int) -> NDArray[np.bool_]: ...
@overload
def is_visible(event_time_us: Times | int, known_time_us: Times | int, cutoff_time_us: Times) -> NDArray[np.bool_]: ...
def is_visible(
    event_time_us: Times | int, known_time_us: Times | int, cutoff_time_us: Times | int
) -> NDArray[np.bool_] | bool:
    """Say whether a row is visible to a question: max(event, known) <= cutoff, at one microsecond.

    Takes ints or int64 arrays that broadcast; returns a bool for ints and a bool array otherwise. Raises as
    `visible_time_us` does.
    """
    visible = visible_time_us(event_time_us, known_time_us)
    cutoff = _checked(cutoff_time_us, "cutoff_time_us")
    if isinstance(visible, int) and isinstance(cutoff, int):
        return visible <= cutoff
    return np.less_equal(visible, cutoff)


@overload
def cutoff_for_event(event_time_us: int) -> int: ...
@overload
def cutoff_for_event(event_time_us: Times) -> Times: ...
def cutoff_for_event(event_time_us: Times | int) -> Times | int:
    """Return the cut-off for scoring an event at `event_time_us`: one microsecond before it.

    To ask about an entity as of t, the cut-off is t itself.

    Raises:
        OverflowError: there is no microsecond before `ALWAYS_US`.
    """
    event = _checked(event_time_us, "event_time_us")
    if isinstance(event, int):
        if event == ALWAYS_US:
            raise OverflowError("no cut-off lies before ALWAYS_US: an event that is scored has a time")
        return event - 1
    if bool((event == ALWAYS_US).any()):
        raise OverflowError("no cut-off lies before ALWAYS_US: an event that is scored has a time")
    return event - np.int64(1)


def time_us_from_datetime(value: datetime) -> int:
    """Return int64 microseconds since the epoch, exactly; a datetime without zone is taken as UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def datetime_from_time_us(time_us: int) -> datetime:
    """Return the UTC datetime of int64 microseconds since the epoch.

    Raises:
        OverflowError: outside what a datetime can say (years 1 to 9999); `ALWAYS_US` is.
    """
    return _EPOCH + timedelta(microseconds=_checked_int(time_us, "time_us"))


def time_us_from_numpy(values: NDArray[np.datetime64]) -> Times:
    """Return int64 microseconds of a datetime64 array of any unit; NaT raises, a remainder below 1 µs is floored.

    Flooring keeps order and never moves a time before an earlier microsecond's cut-off.

    Raises:
        TypeError: not a datetime64 array.
        ValueError: a value is NaT.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind != "M":
        raise TypeError(f"expected a datetime64 array, found {getattr(values, 'dtype', type(values).__name__)}")
    if bool(np.isnat(values).any()):
        raise ValueError("a time is missing (NaT): give rows without time ALWAYS_US, or drop them")
    return values.astype("datetime64[us]").astype(np.int64)


def _checked(value: Times | int, name: str) -> Times | int:
    if isinstance(value, np.ndarray):
        if value.dtype != np.int64:
            raise TypeError(f"{name}: expected an int64 array of microseconds, found {value.dtype}")
        return value
    return _checked_int(value, name)


def _checked_int(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected integer microseconds, found {type(value).__name__}")
    number = int(value)
    if not ALWAYS_US <= number <= TIME_MAX_US:
        raise OverflowError(f"{name}: {number} does not fit int64 microseconds")
    return number

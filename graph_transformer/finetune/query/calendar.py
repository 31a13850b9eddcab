"""Windows on the clock: exact microseconds for seconds to weeks, the calendar (UTC) for months."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.syntax import Unit, Window

Times = NDArray[np.int64]

UNIT_US = {
    Unit.SECONDS: 1_000_000,
    Unit.MINUTES: 60_000_000,
    Unit.HOURS: 3_600_000_000,
    Unit.DAYS: 86_400_000_000,
    Unit.WEEKS: 7 * 86_400_000_000,
}
DAY_US = UNIT_US[Unit.DAYS]
MONTH_DAYS_MAX = 31


def shifted(time_us: Times, count: int, unit: Unit) -> Times:
    """Return the times moved by a count of units.

    A month moves to the same day and time of another month of the calendar (UTC), or to its last day where it has no
    such day: 31 January + 1 month is 28 or 29 February.
    """
    if unit is not Unit.MONTHS:
        return time_us + np.int64(count * UNIT_US[unit])
    day, of_day_us = np.divmod(time_us, np.int64(DAY_US))
    month = day.astype("datetime64[D]").astype("datetime64[M]")
    day_of_month = day - month.astype("datetime64[D]").astype(np.int64)
    first = (month + np.timedelta64(count, "M")).astype("datetime64[D]").astype(np.int64)
    length = (month + np.timedelta64(count + 1, "M")).astype("datetime64[D]").astype(np.int64) - first
    moved: Times = (first + np.minimum(day_of_month, length - 1)) * np.int64(DAY_US) + of_day_us
    return moved


def shifted_time(time_us: int, count: int, unit: Unit) -> int:
    """Return one time moved by a count of units."""
    return int(shifted(np.array([time_us], dtype=np.int64), count, unit)[0])


def horizon_bound_us(window: Window) -> int:
    """Return the most microseconds from t to the window's end."""
    if window.unit is Unit.MONTHS:
        return window.end * MONTH_DAYS_MAX * DAY_US
    return window.end * UNIT_US[window.unit]


def floored(time_us: int, unit: Unit) -> int:
    """Return the start of the second, minute, hour or day (also for weeks and months) that holds a time."""
    size = min(UNIT_US.get(unit, DAY_US), DAY_US)
    return time_us // size * size

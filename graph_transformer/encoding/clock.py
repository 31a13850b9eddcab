"""When a row happened, as a model reads it: its age at the cut-off and its place in the day, the week and the year.

Ages are counted from the row's event time; one that is known and still to come (a calendar) has a negative age. A row
without time (ALWAYS_US) has zeros and its own flag.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.quantile import Bins
from temporal_graph.time_rule import ALWAYS_US

DAY_US = 86_400_000_000
WEEK_US = 7 * DAY_US
AGE_SCALE = 16.5
"""log1p(seconds) / 16.5 is 1 at half a year, so that ages of seconds to years stay near 0 to 1.2."""
_THURSDAY_US = 3 * DAY_US  # the epoch was a Thursday; weeks start on Monday
YEAR_US = 31_556_952_000_000
"""The mean year of the calendar: seasons stay in place for centuries."""
CALENDAR_WIDTH = 11

Floats = NDArray[np.float32]


def log_age(age_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return log1p(seconds) / AGE_SCALE with the sign of the age: float64, for int64 microseconds of any shape."""
    seconds = age_us * 1e-6
    age: NDArray[np.float64] = np.sign(seconds) * np.log1p(np.abs(seconds)) * (1.0 / AGE_SCALE)
    return age


def calendar(time_us: NDArray[np.int64], out: Floats) -> None:
    """Write sin and cos of day (two harmonics), week and year (two), and the weekend flag, into `out` float32[n, 11].

    `time_us` int64[n]. Seasons decided on tasks asked weeks ahead (who drives, who buys), and cost little elsewhere.
    """
    week = np.mod(time_us + _THURSDAY_US, WEEK_US)
    angle = np.empty((len(time_us), 3))
    np.multiply(np.mod(time_us, DAY_US), 2.0 * np.pi / DAY_US, out=angle[:, 0])
    np.multiply(np.mod(time_us, YEAR_US), 2.0 * np.pi / YEAR_US, out=angle[:, 1])
    np.multiply(week, 2.0 * np.pi / WEEK_US, out=angle[:, 2])
    sin, cos = np.sin(angle), np.cos(angle)
    out[:, 0:3], out[:, 3:6] = sin, cos
    sin, cos = sin[:, :2], cos[:, :2]
    np.multiply(2.0 * sin, cos, out=out[:, 6:8], casting="same_kind")  # of twice the angle
    np.subtract(1.0, 2.0 * sin * sin, out=out[:, 8:10], casting="same_kind")
    out[:, 10] = week >= 5 * DAY_US


def clock_width(bins: Bins) -> int:
    """Return the columns `clock` writes: flags untimed and still to come, log age, age in 30 days, bins, calendar."""
    return 4 + bins.count + CALENDAR_WIDTH


def clock(
    event_time_us: NDArray[np.int64],
    cutoff_time_us: NDArray[np.int64],
    bins: Bins,
    asked_time_us: NDArray[np.int64],
) -> tuple[Floats, Floats, Floats]:
    """Return features float32[n, clock_width], ages in days float32[n], and the calendar of other times float32[m, 11].

    Rows are seen at a cut-off each, int64[n] both; `asked_time_us` int64[m].

    The age in days is 0 for what is still to come; the log age says how far ahead that is. `bins` are those of one
    column, the `log_age`.
    """
    timed = event_time_us != ALWAYS_US
    event = np.where(timed, event_time_us, cutoff_time_us)
    signed_us = cutoff_time_us - event
    age_us = np.maximum(signed_us, 0)
    out = np.empty((len(event), clock_width(bins)), dtype=np.float32)
    age = log_age(signed_us)
    days = (age_us * (1.0 / DAY_US)).astype(np.float32)
    out[:, 0] = ~timed
    # A seed asked about one microsecond before it happens is no calendar entry.
    out[:, 1] = signed_us < -1
    out[:, 2] = age
    np.minimum(days * np.float32(1.0 / 30.0), np.float32(12.0), out=out[:, 3])
    bins.encode(age[:, None], out[:, 4 : 4 + bins.count][:, None, :])
    # One call for both: on a few rows a call costs more than its arithmetic.
    dates = np.empty((len(event) + len(asked_time_us), CALENDAR_WIDTH), dtype=np.float32)
    calendar(np.concatenate([event, asked_time_us]), dates)
    out[:, 4 + bins.count :] = dates[: len(event)]
    if not timed.all():
        out[~timed, 1:] = 0.0
    return out, days, dates[len(event) :]

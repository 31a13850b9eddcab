"""Windows on the clock and on the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_transformer.finetune.query.calendar import DAY_US, floored, horizon_bound_us, shifted, shifted_time
from graph_transformer.finetune.query.syntax import Unit, Window
from temporal_graph.time_rule import time_us_from_datetime


def at(text: str) -> int:
    """Microseconds of a date and time in UTC."""
    return time_us_from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2024-01-31T12:00:00.000001", 1, "2024-02-29T12:00:00.000001"),
        ("2023-01-31", 1, "2023-02-28"),
        ("2024-03-31", -1, "2024-02-29"),
        ("2024-01-15", 12, "2025-01-15"),
        ("2024-02-29", 12, "2025-02-28"),
        ("1969-12-31T23:59:59.999999", 2, "1970-02-28T23:59:59.999999"),
        ("2024-05-05", 0, "2024-05-05"),
    ],
)
def test_months_are_those_of_the_calendar(start: str, months: int, end: str) -> None:
    """The same day and time of the month, or the month's last day; to the microsecond, before 1970 too."""
    assert shifted_time(at(start), months, Unit.MONTHS) == at(end)


@given(st.integers(-(10**15), 4 * 10**15), st.integers(-40, 40))
def test_a_month_is_28_to_31_days(time_us: int, months: int) -> None:
    """Forwards or back, and never more than the bound of its window."""
    moved = abs(shifted_time(time_us, months, Unit.MONTHS) - time_us)
    assert 28 * abs(months) * DAY_US <= moved <= horizon_bound_us(Window(0, abs(months), Unit.MONTHS))


@given(st.integers(-(10**15), 4 * 10**15), st.integers(-400, 400))
def test_other_units_are_exact(time_us: int, count: int) -> None:
    """Seconds to weeks are fixed numbers of microseconds."""
    for unit, seconds in (("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86400), ("weeks", 604800)):
        assert shifted_time(time_us, count, Unit(unit)) == time_us + count * seconds * 1_000_000


def test_arrays_move_together() -> None:
    """Each time by its own month's length."""
    found = shifted(np.array([at("2023-01-31"), at("2024-01-31")]), 1, Unit.MONTHS)
    assert found.tolist() == [at("2023-02-28"), at("2024-02-29")]


def test_times_are_floored_to_their_unit() -> None:
    """Weeks and months to the day."""
    time_us = at("2024-05-05T10:20:30.5")
    assert floored(time_us, Unit.MINUTES) == at("2024-05-05T10:20:00")
    assert floored(time_us, Unit.MONTHS) == at("2024-05-05")

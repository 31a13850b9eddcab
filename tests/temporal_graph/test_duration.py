"""Durations as a schema writes them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temporal_graph.duration import DURATION_MAX_US, format_duration, parse_duration_us

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [
        ("0s", 0),
        ("1us", 1),
        ("500ms", 500_000),
        ("5s", 5_000_000),
        ("10m", 600_000_000),
        ("2h", 7_200_000_000),
        ("7d", 604_800_000_000),
        ("100000d", DURATION_MAX_US),
    ],
)
def test_units(text: str, duration_us: int) -> None:
    """Each unit means what it says, in whole microseconds, and is written back the same way."""
    assert parse_duration_us(text) == duration_us
    assert format_duration(duration_us) == text


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 d", "7D", "-1s", "1.5h", "1h30m", "7days", "100001d", "9" * 30 + "s", "٣s"]
)
def test_refused(text: str) -> None:
    """Anything but a whole number and its unit, or beyond the limit, is refused with examples of what is right."""
    with pytest.raises(ValueError, match="500ms, 5s, 10m, 2h or 7d"):
        parse_duration_us(text)


@UNHURRIED
@given(st.integers(0, DURATION_MAX_US))
def test_round_trip(duration_us: int) -> None:
    """Every duration within the limit is written exactly."""
    assert parse_duration_us(format_duration(duration_us)) == duration_us

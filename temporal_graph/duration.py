"""Durations as a schema writes them (`500ms`, `7d`), and the int64 microseconds they mean."""

from __future__ import annotations

import re

_UNITS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_PATTERN = re.compile(r"([0-9]{1,18})(us|ms|s|m|h|d)")

DURATION_MAX_US = 100_000 * 86_400_000_000
"""About 273 years: longer is a typing error, and sums with it stay far inside int64."""

DURATION_EXPECTED = "a duration such as 500ms, 5s, 10m, 2h or 7d (at most 100000d)"


def parse_duration_us(text: str) -> int:
    """Return the microseconds of a duration: a whole number directly followed by us, ms, s, m, h or d.

    Raises:
        ValueError: not such a text, or beyond `DURATION_MAX_US`.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {DURATION_EXPECTED}, found {text!r}")
    duration_us = int(match[1]) * _UNITS_US[match[2]]
    if duration_us > DURATION_MAX_US:
        raise ValueError(f"expected {DURATION_EXPECTED}, found {text!r}")
    return duration_us


def format_duration(duration_us: int) -> str:
    """Return the shortest exact text of a duration: the largest unit that divides it."""
    if duration_us == 0:
        return "0s"
    unit = max((unit for unit, size in _UNITS_US.items() if duration_us % size == 0), key=_UNITS_US.__getitem__)
    return f"{duration_us // _UNITS_US[unit]}{unit}"

"""Histograms of microseconds (HdrHistogram): three digits from 1 µs to ten minutes, merged without loss.

Percentiles of several processes, or of several seconds, cannot be averaged; their histograms can be added.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 600_000_000
DIGITS = 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)


def empty() -> HdrHistogram:
    """A histogram with nothing in it."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def histogram_of(values_us: np.ndarray) -> HdrHistogram:
    """A histogram of the values; one beyond ten minutes counts as ten minutes."""
    histogram = empty()
    values, counts = np.unique(np.clip(values_us, LOWEST_US, HIGHEST_US).astype(np.int64), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return histogram


def merged(histograms: Iterable[HdrHistogram]) -> HdrHistogram:
    """All of them together."""
    whole = empty()
    for histogram in histograms:
        whole.add(histogram)
    return whole


def at_ms(histogram: HdrHistogram, percentile: float) -> float:
    """The milliseconds that so many percent stay within; NaN of nothing."""
    if not histogram.get_total_count():
        return float("nan")
    return float(histogram.get_value_at_percentile(percentile)) / 1e3


def percentiles_ms(histogram: HdrHistogram) -> dict[str, float]:
    """The usual percentiles and the maximum, in milliseconds, by name."""
    found = {f"p{percentile:g}": at_ms(histogram, percentile) for percentile in PERCENTILES}
    return found | {"max": at_ms(histogram, 100.0)}

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtests.load.histogram import at_ms, empty, histogram_of, merged, percentiles_ms


def test_percentiles_are_those_of_the_values() -> None:
    """To three digits, over five decades."""
    values_us = np.random.default_rng(0).lognormal(8.0, 2.0, 50_000)
    found = histogram_of(values_us)
    for q in (50.0, 90.0, 99.0, 99.9):
        assert at_ms(found, q) == pytest.approx(np.percentile(values_us, q) / 1e3, rel=0.01)
    assert percentiles_ms(found)["max"] == pytest.approx(values_us.max() / 1e3, rel=0.002)


def test_merging_is_counting_together() -> None:
    """The percentile of two processes is that of all their values, which no average of the two gives."""
    fast, slow = np.full(900, 1_000), np.full(100, 80_000)
    both = merged([histogram_of(fast), histogram_of(slow)])
    assert both.get_total_count() == 1_000
    assert at_ms(both, 89) == pytest.approx(1.0, rel=0.002)
    assert at_ms(both, 91) == pytest.approx(80.0, rel=0.002)


def test_extremes_are_kept_within_the_range() -> None:
    """Nothing is lost: below a microsecond counts as one, an hour as ten minutes; of nothing there is no percentile."""
    found = histogram_of(np.array([0, 3_600_000_000]))
    assert found.get_total_count() == 2
    assert at_ms(found, 100) == pytest.approx(600_000, rel=0.002)
    assert math.isnan(at_ms(empty(), 50))

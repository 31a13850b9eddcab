"""The batch histogram counts as Prometheus counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram

from graph_updater.histogram import BatchHistogram


def test_a_batch_counts_as_its_observations_one_by_one() -> None:
    """Buckets, sum and count equal those of the client library's own histogram, bounds included."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    values = np.asarray([0.0005, 0.001, 0.0011, 0.02, 3.0, 0.001])
    histogram = BatchHistogram("wait_seconds", "Wait.", [0.001, 0.01, 1.0], ours)
    histogram.observe(values[:3])
    histogram.observe(values[3:])
    single = Histogram("wait_seconds", "Wait.", buckets=[0.001, 0.01, 1.0], registry=theirs)
    for value in values.tolist():
        single.observe(value)
    for bound in ("0.001", "0.01", "1.0", "+Inf"):
        name, labels = "wait_seconds_bucket", {"le": bound}
        assert ours.get_sample_value(name, labels) == theirs.get_sample_value(name, labels)
    assert ours.get_sample_value("wait_seconds_sum") == pytest.approx(theirs.get_sample_value("wait_seconds_sum"))
    assert ours.get_sample_value("wait_seconds_count") == histogram.count == 6


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    """Never less than the true quantile; nothing observed is NaN, beyond the last bound is infinite."""
    histogram = BatchHistogram("wait_seconds", "Wait.", [1.0, 2.0], CollectorRegistry())
    assert math.isnan(histogram.quantile(0.5))
    histogram.observe(np.asarray([0.5] * 98 + [1.5, 9.0]))
    assert histogram.quantile(0.5) == 1.0
    assert histogram.quantile(0.99) == 2.0
    assert math.isinf(histogram.quantile(1.0))


def test_bounds_must_rise() -> None:
    """Bounds that fall, repeat or are missing are refused."""
    for bounds in ([], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="bounds"):
            BatchHistogram("wait_seconds", "Wait.", bounds, CollectorRegistry())

from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.encoding.quantile import BINS, Bins, even_edges, quantile_edges, signed_log


def encoded(value: float, edges: tuple[float, ...], bins: int = 4) -> list[float]:
    """One value through the bins of one column."""
    out = np.empty((1, 1, bins), dtype=np.float32)
    Bins([edges], bins).encode(np.array([[value]]), out)
    return out[0, 0].tolist()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-5.0, [0, 0, 0, 0]), (0.0, [0, 0, 0, 0]), (1.5, [1, 0.5, 0, 0]), (4.0, [1, 1, 1, 1]), (9.0, [1, 1, 1, 1])],
)
def test_a_number_fills_the_bins_below_it(value: float, expected: list[float]) -> None:
    """Bins below are full, the number's own is filled in part, those above are empty."""
    assert encoded(value, (0.0, 1.0, 2.0, 3.0, 4.0)) == expected


def test_missing_bins_stay_empty() -> None:
    """A column whose values repeat has fewer bins; the rest are zero for every number."""
    assert encoded(9.0, (0.0, 1.0, 2.0)) == [1, 1, 0, 0]


def test_quantiles_hold_equally_many_values() -> None:
    """Each bin of a skewed column holds about the same share of the training values."""
    values = np.random.default_rng(0).lognormal(3, 1, 16_000)
    edges = quantile_edges(values)
    counts, _ = np.histogram(values, np.array(edges))
    assert len(edges) == BINS + 1
    assert counts.min() > 990


@pytest.mark.parametrize("values", [[], [np.nan], [3.0, 3.0]])
def test_columns_without_spread_still_have_a_bin(values: list[float]) -> None:
    """No values, or one value only, give one bin of positive width."""
    for fit in (quantile_edges, even_edges):
        edges = fit(np.array(values))
        assert edges[-1] > edges[0]


def test_signed_log_keeps_order_and_sign() -> None:
    """Rising numbers stay rising, zero stays zero, opposite numbers stay opposite, null stays null."""
    values = np.array([-1e6, -2.0, 0.0, 2.0, 1e6])
    logs = signed_log(values)
    assert (np.diff(logs) > 0).all()
    assert np.allclose(logs, -logs[::-1])
    assert np.isnan(signed_log(np.array([np.nan]))).all()

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.calibration.conformal import PAIRS, conformal_margin, fit_conformal, median_shift, nominal
from graph_transformer.target import MEDIAN, QUANTILES

Floats = NDArray[np.float64]
Z = np.array([-1.6449, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449])
"""Quantiles of the normal distribution at QUANTILES."""


def drawn(count: int, *, seed: int = 0, spread: float = 1.0, moved: float = 0.0) -> tuple[Floats, Floats]:
    """Quantiles of a model whose intervals are `spread` times the true ones and whose center is off, and labels."""
    random = np.random.default_rng(seed)
    center, scale = random.normal(0, 3, count), random.uniform(0.5, 2.0, count)
    label = center + scale * random.normal(size=count)
    return (center + moved)[:, None] + spread * scale[:, None] * Z, label


def coverage(quantiles: Floats, label: Floats, pair: tuple[int, int]) -> float:
    """The share of labels within an interval."""
    return float(np.mean((label >= quantiles[:, pair[0]]) & (label <= quantiles[:, pair[1]])))


def test_pairs_are_the_intervals_of_50_80_and_90_percent() -> None:
    """The quantiles are symmetric around the median."""
    assert [nominal(pair) for pair in PAIRS] == [0.9, 0.8, 0.5]
    assert QUANTILES[MEDIAN] == 0.5


@pytest.mark.parametrize(("spread", "moved"), [(0.4, 0.0), (2.5, 0.0), (1.0, 0.0), (0.7, 0.8)])
def test_intervals_hold_what_they_promise_on_other_examples(spread: float, moved: float) -> None:
    """Too narrow, too wide, right, or beside: after calibration 50, 80 and 90 % of fresh labels lie inside."""
    raw, label = drawn(4000, spread=spread, moved=moved)
    fresh, fresh_label = drawn(20_000, seed=1, spread=spread, moved=moved)
    calibrated = fit_conformal(raw, label)[1].apply(fresh)
    assert bool((np.diff(calibrated, axis=1) >= 0).all())
    for pair in PAIRS:
        assert coverage(calibrated, fresh_label, pair) == pytest.approx(nominal(pair), abs=0.02)
    if spread != 1.0 and not moved:
        assert abs(coverage(fresh, fresh_label, PAIRS[0]) - 0.9) > 0.05


def test_small_slices_hold_on_average() -> None:
    """The finite-sample rank keeps the promise over many slices of 19 examples, and barely exceeds it."""
    found = []
    for seed in range(300):
        raw, label = drawn(19, seed=seed, spread=0.5)
        fresh, fresh_label = drawn(200, seed=1000 + seed, spread=0.5)
        low, high = PAIRS[0]
        margin = conformal_margin(raw[:, low], raw[:, high], label, PAIRS[0])
        inside = (fresh_label >= fresh[:, low] - margin) & (fresh_label <= fresh[:, high] + margin)
        found.append(inside.mean())
    assert 0.89 <= np.mean(found) <= 0.95


def test_the_margin_is_the_rank_that_the_paper_says() -> None:
    """Of 19 examples the 90 % interval takes the 18th least distance; of fewer than 9, the greatest."""
    label = np.arange(1.0, 20.0)
    assert conformal_margin(np.zeros(19), np.zeros(19), label, PAIRS[0]) == 18.0
    assert conformal_margin(np.zeros(5), np.zeros(5), label[:5], PAIRS[0]) == 5.0
    assert conformal_margin(np.full(19, -30.0), np.full(19, 30.0), label, PAIRS[0]) < 0


def test_the_median_moves_only_where_that_holds() -> None:
    """A median that is off by half its spread is moved; one that is right stays exactly, as do too few examples."""
    random = np.random.default_rng(0)
    assert median_shift(random.normal(0.5, 1, 1000)) == pytest.approx(0.5, abs=0.1)
    kept = [median_shift(random.normal(0.0, 1, 1000)) for _ in range(20)]
    assert kept.count(0.0) >= 16
    assert median_shift(np.full(3, 9.0)) == 0.0


def test_each_step_has_its_own_shifts() -> None:
    """A forecast whose second step is too narrow widens that one alone."""
    first, first_label = drawn(2000)
    second, second_label = drawn(2000, seed=1, spread=0.3)
    method, found = fit_conformal(np.hstack([first, second]), np.stack([first_label, second_label], axis=1), steps=2)
    shift = np.reshape(found.shift, (2, -1))
    assert method == "conformal"
    assert np.abs(shift[0]).max() < 0.2 < shift[1, -1]

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.calibration.conformal import (
    PAIRS,
    Place,
    conformal_margin,
    fit_conformal,
    losses,
    nominal,
    on_line,
    place_of,
    shifted,
)
from graph_transformer.calibration.maps import NO_LINE, Scale
from graph_transformer.heads import Unit
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
    zeros = np.zeros(1000)
    moved = place_of(zeros, random.normal(0.5, 1, 1000))
    assert moved.shift == pytest.approx(0.5, abs=0.1)
    assert moved.line == NO_LINE
    found = [place_of(zeros, random.normal(0.0, 1, 1000)) for _ in range(20)]
    assert found.count(Place()) >= 16
    assert place_of(zeros[:3], np.full(3, 9.0)) == Place()


def test_a_median_that_is_off_by_its_size_is_put_on_a_line() -> None:
    """Low answers too high and high ones too low: no shift mends both, a rising line does, also on fresh examples."""
    random = np.random.default_rng(0)
    truth = random.normal(0.0, 2.0, 24_000)
    median, label = 0.5 * truth, truth + random.normal(0.0, 0.3, 24_000)
    place = place_of(median[:4000], label[:4000])
    assert place.line != NO_LINE
    assert np.abs(place.apply(median[4000:]) - truth[4000:]).mean() < 0.1
    assert fit_conformal(np.tile(median[:4000, None], 7), label[:4000])[1].lines == (place.line,)


def test_a_line_rises_through_labels_that_do_not() -> None:
    """Parts whose labels fall are joined; labels that never rise leave one knot, which is a shift."""
    median = np.arange(400.0)
    label = np.where(np.arange(400) < 200, 1.0, 0.0)
    assert on_line(median, label, Scale.PLAIN).line == ((199.5,), (0.5,))
    knots, wanted = on_line(median, np.where(np.arange(400) < 100, 5.0, np.arange(400) / 10), Scale.PLAIN).line
    assert bool((np.diff(knots) > 0).all())
    assert bool((np.diff(wanted) > 0).all())
    # Equal answers have one place, whatever their labels.
    assert len(on_line(np.zeros(400), median, Scale.PLAIN).line[0]) == 1


def spent(count: int, *, seed: int = 0, factor: float = 1.0) -> tuple[Floats, Floats]:
    """Quantiles `factor` times too high of sums that are nothing for a third of those asked, and the sums."""
    random = np.random.default_rng(seed)
    center = random.normal(2.0, 1.0, count)
    label = np.exp(center + 0.5 * random.normal(size=count)) * (random.random(count) > 1 / 3)
    # The quantiles of what a third of the time is nothing.
    at = np.array([-9.0, -9.0, -9.0, -0.6745, 0.3186, 1.0364, 1.4395])
    return factor * np.exp(center[:, None] + 0.5 * at), label


def test_quantiles_that_are_a_share_too_high_move_by_a_share() -> None:
    """Sums of all sizes, each three times too much: on the logarithmic scale the median's error comes back."""
    raw, label = spent(2000, factor=3.0)
    fresh, fresh_label = spent(20_000, seed=1, factor=3.0)
    right, _ = spent(20_000, seed=1)
    method, found = fit_conformal(raw, label)
    calibrated = found.apply(fresh)
    error = [np.abs(each[:, 3] - fresh_label).mean() for each in (fresh, calibrated, right)]
    assert (method, found.scale) == ("conformal_log", Scale.LOG)
    assert error[1] - error[2] < 0.1 * (error[0] - error[2])
    for pair in PAIRS:
        assert coverage(calibrated, fresh_label, pair) >= nominal(pair) - 0.02


def test_quantiles_that_are_a_sum_too_high_move_by_a_sum_and_not_below_zero() -> None:
    """Where every median is 2 too high, taking 2 away is better than taking a share, and nothing is below zero."""
    raw, label = spent(4000)
    fresh, fresh_label = spent(20_000, seed=1)
    method, found = fit_conformal(raw + 2.0, label)
    calibrated = found.apply(fresh + 2.0)
    assert (method, found.scale) == ("conformal_above_zero", Scale.ABOVE_ZERO)
    assert found.shift[3] == pytest.approx(-2.0, abs=0.5)
    assert calibrated.min() == 0.0
    assert np.abs(calibrated[:, 3] - fresh_label).mean() < np.abs(fresh[:, 3] + 2.0 - fresh_label).mean() - 0.3


def test_intervals_of_what_is_never_below_zero_hold_and_end_there() -> None:
    """Quantiles that the unit ends at zero keep what they promise, among labels of which a third are zero."""
    unit = Unit(least=0.0)

    def spent(seed: int, count: int) -> tuple[Floats, Floats]:
        raw, label = drawn(count, seed=seed, spread=0.6)
        return unit.decode(raw), np.maximum(label, 0.0)

    raw, label = spent(0, 4000)
    fresh, fresh_label = spent(1, 20_000)
    calibrated = fit_conformal(raw, label)[1].apply(fresh)
    assert np.mean(fresh_label == 0.0) > 0.3
    assert calibrated.min() == 0.0
    assert bool((np.diff(calibrated, axis=1) >= 0).all())
    for pair in PAIRS:
        # Where quantiles stand at zero, so do many labels: an interval may hold more than it promises.
        assert nominal(pair) - 0.02 <= coverage(calibrated, fresh_label, pair)


def test_labels_below_zero_or_few_of_them_are_shifted_plainly() -> None:
    """A label below zero leaves the number's own scale, whatever else would fit; too few labels choose no logarithm."""
    raw, label = spent(4000, factor=1.5)
    label[7] = -0.01
    assert fit_conformal(raw, label)[0] == "conformal"
    assert fit_conformal(raw[:9], np.abs(label[:9]))[0] == "conformal_above_zero"


def test_the_best_shift_counts_what_zero_stops() -> None:
    """Of labels that are nothing for the most part, a median just above nothing goes all the way down."""
    median = np.full(100, 0.5)
    label = np.where(np.arange(100) < 60, 0.0, 4.0)
    assert shifted(median, label, Scale.ABOVE_ZERO).apply(median).max() == 0.0


def test_the_loss_is_that_of_training() -> None:
    """Pinball over all quantiles, the median's once more: an error of 2 upwards by hand."""
    levels = np.array(QUANTILES)
    assert losses(np.zeros((1, 7)), np.array([[2.0]]))[0] == pytest.approx((2 * levels).mean() + 1.0)
    assert losses(np.zeros((3, 14)), np.ones((3, 2))).shape == (3,)


def test_each_step_has_its_own_shifts() -> None:
    """A forecast whose second step is too narrow widens that one alone."""
    first, first_label = drawn(2000)
    second, second_label = drawn(2000, seed=1, spread=0.3)
    method, found = fit_conformal(np.hstack([first, second]), np.stack([first_label, second_label], axis=1), steps=2)
    shift = np.reshape(found.shift, (2, -1))
    assert method == "conformal"
    assert np.abs(shift[0]).max() < 0.2 < shift[1, -1]

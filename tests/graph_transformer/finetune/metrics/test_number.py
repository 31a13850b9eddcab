from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, r2_score, root_mean_squared_error

from graph_transformer.finetune.metrics.number import INTERVALS, measure_number
from graph_transformer.target import MEDIAN, QUANTILES

Z = np.array([-1.6449, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449])


def test_intervals_are_those_their_names_say() -> None:
    """The positions bound 50, 80 and 90 % of the distribution."""
    for share, (low, high) in INTERVALS.items():
        assert QUANTILES[high] - QUANTILES[low] == pytest.approx(share / 100)


def test_errors_are_scikit_learns() -> None:
    """MAE, RMSE, R² and the mean pinball loss agree with scikit-learn; NMAE is over the deviation given."""
    random = np.random.default_rng(0)
    center = random.normal(0, 2, 1000)
    label = center + random.normal(size=1000)
    output = center[:, None] + Z
    found = measure_number(output, label, label_std=2.0)
    assert found.mae == pytest.approx(mean_absolute_error(label, output[:, MEDIAN]))
    assert found.rmse == pytest.approx(root_mean_squared_error(label, output[:, MEDIAN]))
    assert found.r2 == pytest.approx(r2_score(label, output[:, MEDIAN]))
    losses = [mean_pinball_loss(label, output[:, k], alpha=level) for k, level in enumerate(QUANTILES)]
    assert found.pinball == pytest.approx(np.mean(losses))
    assert found.nmae == pytest.approx(found.mae / 2.0)
    assert measure_number(output, label).nmae is None


def test_coverage_and_width_are_of_the_intervals() -> None:
    """True quantiles hold 50, 80 and 90 %; half as wide ones less; a bound itself counts as inside."""
    random = np.random.default_rng(0)
    label = random.normal(size=20_000)
    found = measure_number(np.tile(Z, (20_000, 1)), label)
    assert [found.coverage_50, found.coverage_80, found.coverage_90] == pytest.approx([0.5, 0.8, 0.9], abs=0.01)
    assert [found.width_50, found.width_80, found.width_90] == pytest.approx(2 * Z[[4, 5, 6]])
    assert measure_number(np.tile(0.5 * Z, (20_000, 1)), label).coverage_90 < 0.65
    assert measure_number(np.zeros((2, 7)), np.zeros(2)).coverage_50 == 1.0


def test_a_forecast_has_an_error_per_step() -> None:
    """Steps are measured together and each by itself; one step has no such list."""
    output = np.zeros((4, 14))
    found = measure_number(output, np.array([[1.0, 3.0]] * 4))
    assert found.mae_by_step == (1.0, 3.0)
    assert found.mae == 2.0
    assert measure_number(np.zeros((4, 7)), np.ones(4)).mae_by_step is None


def test_labels_that_are_all_alike_have_no_r2() -> None:
    """Without spread there is nothing to explain: R² is undefined, the error is not."""
    found = measure_number(np.zeros((4, 7)), np.ones(4))
    assert math.isnan(found.r2)
    assert found.mae == 1.0

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from graph_transformer.calibration import calibration_noise as training_noise
from graph_transformer.calibration import expected_calibration_error
from graph_transformer.finetune.metrics.number import pinball_losses
from stream.quality.figures import (
    average_precision,
    binary_figures,
    calibration_error,
    calibration_noise,
    choice_figures,
    list_figures,
    number_figures,
    roc_auc,
)

SCORED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(scored=SCORED)
def test_rankings_are_those_of_scikit_learn(scored: list[tuple[int, bool]]) -> None:
    """Ties or none, the area and the average precision are scikit-learn's; of labels all alike they are NaN."""
    score = np.array([s / 6 for s, _ in scored])
    label = np.array([float(y) for _, y in scored])
    if len(set(label)) < 2:
        assert math.isnan(roc_auc(score, label))
        assert math.isnan(average_precision(score, label))
        return
    assert roc_auc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert average_precision(score, label) == pytest.approx(average_precision_score(label, score), abs=1e-12)


def test_calibration_is_what_training_prints() -> None:
    """The same bins as in training, so that the two numbers can be compared."""
    rng = np.random.default_rng(3)
    probability = rng.random(1000)
    label = (rng.random(1000) < probability**2).astype(np.float64)
    assert calibration_error(probability, label) == expected_calibration_error(probability, label)
    assert calibration_noise(probability) == training_noise(probability)
    assert calibration_error(probability, label) > 3 * calibration_noise(probability)


def test_probabilities_of_exactly_one_cost_a_finite_loss() -> None:
    """A certain answer that is wrong is dear, not infinite."""
    found = binary_figures(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    assert 10 < found.log_loss < 20
    assert (found.brier, found.base_rate, found.mean_prediction) == (0.5, 0.0, 0.5)


def test_nothing_has_no_figures() -> None:
    """Of no examples every figure is NaN, without a warning or an error."""
    found = binary_figures(np.empty(0), np.empty(0))
    assert all(math.isnan(getattr(found, name)) for name in ("roc_auc", "log_loss", "calibration_error", "base_rate"))


def test_a_choice_is_its_most_probable_class() -> None:
    """Accuracy counts first choices, log loss the true class's probability."""
    found = choice_figures(np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0, 0]))
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx(-(math.log(0.7) + math.log(0.4)) / 2)


def test_numbers_have_the_pinball_loss_of_training() -> None:
    """Error of the median, mean pinball loss over levels, and the share inside the widest interval."""
    levels = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
    quantiles = np.sort(np.random.default_rng(1).normal(size=(50, 7)), axis=1)
    truth = np.random.default_rng(2).normal(size=50)
    found = number_figures(quantiles, truth, levels)
    assert found.pinball_loss == pytest.approx(float(pinball_losses(quantiles[:, None, :], truth[:, None]).mean()))
    assert found.mean_absolute_error == pytest.approx(float(np.abs(truth - quantiles[:, 3]).mean()))
    assert 0 < found.coverage < 1


def test_lists_gain_by_rank() -> None:
    """Hit, reciprocal rank and NDCG of two lists by hand; lists nobody followed count in their ratio only."""
    found = list_figures([[2, 3], []], [3, 3], [2, 1], lists=4)
    assert found.hit_ratio == 0.5
    assert found.mean_reciprocal_rank == 0.25
    ideal = 1 + 1 / math.log2(3)
    assert found.ndcg == pytest.approx((1 / math.log2(3) + 0.5) / ideal / 2)
    assert found.followed_ratio == 0.5
    assert list_figures([], [], [], lists=3).followed_ratio == 0.0

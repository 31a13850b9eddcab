from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import log_loss

from graph_transformer.calibration import expected_calibration_error, log_softmax, sigmoid
from graph_transformer.calibration.classes import (
    BIAS_CLASSES_MAX,
    BIAS_PRIOR,
    fit_bias,
    fit_multiclass,
    fit_multilabel,
    fit_temperature,
    softmax_losses,
)
from graph_transformer.calibration.maps import Affine

Floats = NDArray[np.float64]
BIAS = np.array([1.0, 0.0, -1.5])


def drawn(count: int, *, seed: int = 0, classes: int = 3) -> tuple[Floats, Floats]:
    """Logits of classes that are true, and classes drawn from them."""
    random = np.random.default_rng(seed)
    logit = random.normal(0, 1.5, (count, classes))
    share = np.exp(log_softmax(logit))
    return logit, (share.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).astype(np.float64)


def test_losses_are_scikit_learns() -> None:
    """The mean log loss agrees with scikit-learn's."""
    logit, label = drawn(500)
    assert softmax_losses(logit, label).mean() == pytest.approx(log_loss(label, np.exp(log_softmax(logit))), rel=1e-9)


def test_temperature_and_biases_are_found() -> None:
    """Logits that were doubled and moved come back: scale one half, biases undone up to a common number."""
    logit, label = drawn(50_000)
    assert fit_temperature(2.0 * logit, label).scale[0] == pytest.approx(0.5, rel=0.03)
    found = fit_bias(2.0 * logit + BIAS, label)
    assert found.scale[0] == pytest.approx(0.5, rel=0.03)
    undone = np.array(found.offset) + 0.5 * BIAS
    assert undone - undone.mean() == pytest.approx(np.zeros(3), abs=0.05)


def test_biases_are_where_scipys_minimum_is() -> None:
    """Newton's method ends where a general optimizer does."""
    logit, label = drawn(300)

    def loss(weights: Floats) -> float:
        fitted = softmax_losses(weights[0] * logit + weights[1:], label).sum()
        return float(fitted + 0.5 * BIAS_PRIOR * (weights[1:] ** 2).sum())

    best = minimize(loss, np.array([1.0, 0.0, 0.0, 0.0]), tol=1e-10)
    found = fit_bias(logit, label)
    assert np.concatenate([found.scale, found.offset]) == pytest.approx(best.x, abs=1e-3)


def test_the_choice_among_classes_follows_the_slice() -> None:
    """Overconfidence gets a temperature, a class too favored a bias, and a handful of examples nothing."""
    logit, label = drawn(5000)
    assert fit_multiclass(3.0 * logit, label)[0] == "temperature"
    assert fit_multiclass(logit + BIAS, label)[0] == "bias"
    assert fit_multiclass(3.0 * logit[:20], label[:20]) == ("none", Affine())


def test_overconfident_classes_come_true_on_other_examples() -> None:
    """The top class is right as often as it says, and true logits do not get worse by a thousandth."""
    logit, label = drawn(5000)
    fresh, fresh_label = drawn(20_000, seed=1)
    found = fit_multiclass(3.0 * logit, label)[1]

    def error(output: Floats) -> float:
        right = (output.argmax(axis=1) == fresh_label).astype(np.float64)
        return expected_calibration_error(np.exp(log_softmax(output)).max(axis=1), right)

    assert error(3.0 * fresh) > 0.1
    assert error(found.apply(3.0 * fresh)) < 0.02
    kept = fit_multiclass(logit, label)[1].apply(fresh)
    assert softmax_losses(kept, fresh_label).mean() < softmax_losses(fresh, fresh_label).mean() + 0.001


def test_many_classes_and_missing_ones_stay_finite() -> None:
    """A class that the slice lacks has a finite bias; beyond the limit there is none."""
    logit, label = drawn(400)
    without = label != 2.0
    assert np.isfinite(fit_bias(logit[without], label[without]).offset).all()
    many, index = drawn(400, classes=BIAS_CLASSES_MAX + 1)
    assert fit_multiclass(many, index)[1].offset == (0.0,)


def test_each_label_of_several_has_its_own_scale() -> None:
    """One class doubled, one moved, one too rare to say: the first two are put right, the third is left."""
    random = np.random.default_rng(0)
    logit = random.normal(-1, 1.5, (20_000, 3))
    label = (random.random(logit.shape) < sigmoid(logit)).astype(np.float64)
    label[:, 2] = np.arange(20_000) < 3
    _, found = fit_multilabel(np.stack([2.0 * logit[:, 0], logit[:, 1] + 2.0, logit[:, 2]], axis=1), label)
    assert found.scale == pytest.approx([0.5, 1.0, 1.0], rel=0.05)
    assert found.offset == pytest.approx([0.0, -2.0, 0.0], abs=0.1)

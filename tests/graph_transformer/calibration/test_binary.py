from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from graph_transformer.calibration import expected_calibration_error, sigmoid
from graph_transformer.calibration.binary import (
    ISOTONIC_MIN,
    PIECES_MAX,
    fit_binary,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    log_losses,
)
from graph_transformer.calibration.maps import SCALE_MIN, Affine

Floats = NDArray[np.float64]


def drawn(count: int, *, mean: float = -2.0, seed: int = 0) -> tuple[Floats, Floats]:
    """Logits that are true, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logit = random.normal(mean, 1.5, count)
    return logit, (random.random(count) < sigmoid(logit)).astype(np.float64)


def bent(logit: Floats) -> Floats:
    """A rising distortion no scale and offset undo: steep below -2, flat above."""
    return np.where(logit < -2.0, 3.0 * (logit + 2.0), 0.3 * (logit + 2.0))


def test_platt_finds_scale_and_offset_that_made_the_labels() -> None:
    """Labels drawn from sigmoid(0.5 z - 2) give back a scale near 0.5 and an offset near -2."""
    random = np.random.default_rng(0)
    logit = random.normal(0, 3, 200_000)
    label = (random.random(len(logit)) < sigmoid(0.5 * logit - 2.0)).astype(np.float64)
    scale, offset = fit_platt(logit, label)
    assert scale == pytest.approx(0.5, abs=0.02)
    assert offset == pytest.approx(-2.0, abs=0.05)


def test_platt_is_a_logistic_regression() -> None:
    """Scale and offset are those of scikit-learn's regression without penalty, save what drawing labels in costs."""
    logit, label = drawn(20_000)
    scale, offset = fit_platt(2.0 * logit + 1.0, label)
    other = LogisticRegression(C=np.inf, tol=1e-10).fit((2.0 * logit + 1.0)[:, None], label)
    assert scale == pytest.approx(other.coef_[0, 0], rel=2e-3)
    assert offset == pytest.approx(other.intercept_[0], rel=2e-3)
    assert log_losses(logit, label).mean() == pytest.approx(log_loss(label, sigmoid(logit)), rel=1e-9)


def test_temperature_is_a_scale_that_leaves_even_odds() -> None:
    """Logits three times too large are divided by three, without an offset."""
    logit, label = drawn(100_000)
    assert fit_temperature(3.0 * logit, label) == pytest.approx(1 / 3, rel=0.03)


def test_platt_stays_finite_on_separable_labels() -> None:
    """A slice that a threshold separates gives a finite scale: no probability becomes exactly 0 or 1."""
    logit = np.array([-2.0, -1.0, 1.0, 2.0])
    scale, offset = fit_platt(logit, np.array([0.0, 0.0, 1.0, 1.0]))
    probability = sigmoid(scale * logit + offset)
    assert np.isfinite([scale, offset]).all()
    assert 0.0 < probability.min() < probability.max() < 1.0


def test_platt_never_turns_the_ranking_around() -> None:
    """Labels that contradict the logits give the smallest positive scale, with which the mean still comes true."""
    logit = np.linspace(-3, 3, 1000) + 5.0
    label = (logit < 4.0).astype(np.float64)
    scale, offset = fit_platt(logit, label)
    assert scale == SCALE_MIN
    assert sigmoid(scale * logit + offset).mean() == pytest.approx(label.mean(), abs=0.002)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_refused(label: float) -> None:
    """A slice of one kind says nothing about the other."""
    for fit in (fit_platt, fit_temperature, fit_isotonic, fit_binary):
        with pytest.raises(ValueError, match="both classes"):
            fit(np.zeros(5), np.full(5, label))  # type: ignore[operator]


def test_isotonic_follows_what_no_scale_can() -> None:
    """Bent logits come back near the truth on other examples, closer than Platt's, with few pieces and no tie."""
    logit, label = drawn(40_000)
    line = fit_isotonic(bent(logit), label)
    assert len(line.raw) <= PIECES_MAX + 1
    fresh, fresh_label = drawn(40_000, seed=1)
    scale, offset = fit_platt(bent(logit), label)
    calibrated = line.apply(bent(fresh))
    assert log_losses(calibrated, fresh_label).mean() < log_losses(scale * bent(fresh) + offset, fresh_label).mean()
    assert expected_calibration_error(sigmoid(calibrated), fresh_label) < 0.01
    assert average_precision_score(fresh_label, calibrated) == average_precision_score(fresh_label, bent(fresh))
    assert len(np.unique(calibrated)) == len(np.unique(bent(fresh)))


def test_isotonic_knots_are_those_of_scikit_learns_blocks() -> None:
    """Where blocks are large enough none is joined: three values with known shares give three knots."""
    logit = np.repeat([-1.0, 0.0, 2.0], 1000)
    label = np.concatenate([np.arange(1000) < count for count in (100, 300, 800)]).astype(np.float64)
    line = fit_isotonic(logit, label)
    assert line.raw == (-1.0, 0.0, 2.0)
    assert sigmoid(np.array(line.logit)) == pytest.approx(isotonic_regression([0.1, 0.3, 0.8]), abs=1e-12)


def test_isotonic_joins_blocks_that_hold_one_kind_alone() -> None:
    """Nothing but negatives below and nothing but positives above still give finite logits."""
    logit = np.concatenate([np.linspace(-9, -1, 500), np.linspace(-1, 1, 400), np.linspace(1, 9, 500)])
    label = np.concatenate([np.zeros(500), np.arange(400) % 2, np.ones(500)])
    line = fit_isotonic(logit, label)
    assert np.isfinite(line.apply(np.array([-50.0, 50.0]))).all()
    assert np.isfinite(line.logit).all()


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_wrong_confidence_is_put_right(factor: float) -> None:
    """Logits three times too large, or much too small, are calibrated on examples that the fit has not seen."""
    logit, label = drawn(20_000)
    fresh, fresh_label = drawn(20_000, seed=1)
    before = expected_calibration_error(sigmoid(factor * fresh), fresh_label)
    name, found = fit_binary(factor * logit, label)
    after = expected_calibration_error(sigmoid(found.apply(factor * fresh)), fresh_label)
    assert name in ("temperature", "platt")
    assert before > 0.03
    assert after < 0.01


def test_bent_logits_get_isotonic_and_few_examples_never() -> None:
    """Pieces where they pay, two numbers at most where positives are few, nothing for a handful."""
    logit, label = drawn(40_000)
    assert fit_binary(bent(logit), label)[0] == "isotonic"
    few = np.concatenate([np.flatnonzero(label > 0.5)[: ISOTONIC_MIN - 1], np.flatnonzero(label < 0.5)[:5000]])
    assert fit_binary(bent(logit)[few], label[few])[0] in ("none", "temperature", "platt")
    handful = np.concatenate([np.flatnonzero(label > 0.5)[:5], np.flatnonzero(label < 0.5)[:500]])
    assert fit_binary(3.0 * logit[handful], label[handful]) == ("none", Affine())


def test_what_is_calibrated_is_not_made_worse() -> None:
    """Over many slices of true logits, fresh log loss rises by less than a thousandth, and none gets pieces."""
    fresh, fresh_label = drawn(50_000, seed=99)
    truth = log_losses(fresh, fresh_label).mean()
    for seed in range(10):
        name, found = fit_binary(*drawn(5000, seed=seed))
        assert name != "isotonic"
        assert log_losses(found.apply(fresh), fresh_label).mean() < truth + 0.001


def test_rare_positives_come_true() -> None:
    """One positive in a hundred, overconfident: the calibrated mean is the share, in the top hundredth too."""
    logit, label = drawn(100_000, mean=-6.0)
    fresh, fresh_label = drawn(100_000, mean=-6.0, seed=1)
    _, found = fit_binary(2.0 * logit, label)
    probability = sigmoid(found.apply(2.0 * fresh))
    top = np.argsort(-probability)[:1000]
    assert probability.mean() == pytest.approx(fresh_label.mean(), rel=0.1)
    assert probability[top].mean() == pytest.approx(fresh_label[top].mean(), rel=0.2)
    assert expected_calibration_error(probability, fresh_label) < 0.002

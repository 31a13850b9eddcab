from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.calibration import (
    SCALE_MIN,
    Calibration,
    expected_calibration_error,
    fit_platt,
    prior_correction,
    sigmoid,
)


def test_platt_finds_scale_and_offset_that_made_the_labels() -> None:
    """Labels drawn from sigmoid(0.5 z - 2) give back a scale near 0.5 and an offset near -2."""
    random = np.random.default_rng(0)
    logit = random.normal(0, 3, 200_000)
    label = (random.random(len(logit)) < sigmoid(0.5 * logit - 2.0)).astype(np.float64)
    scale, offset = fit_platt(logit, label)
    assert scale == pytest.approx(0.5, abs=0.02)
    assert offset == pytest.approx(-2.0, abs=0.05)


def test_platt_stays_finite_on_separable_labels() -> None:
    """A slice that a threshold separates gives a finite scale: no probability becomes exactly 0 or 1."""
    logit = np.array([-2.0, -1.0, 1.0, 2.0])
    scale, offset = fit_platt(logit, np.array([0.0, 0.0, 1.0, 1.0]))
    probability = sigmoid(scale * logit + offset)
    assert np.isfinite([scale, offset]).all()
    assert 0.0 < probability.min() < probability.max() < 1.0


def test_platt_never_turns_the_ranking_around() -> None:
    """Labels that contradict the logits give the smallest positive scale, not a negative one."""
    logit = np.linspace(-3, 3, 1000)
    scale, _ = fit_platt(logit, (logit < 0).astype(np.float64))
    assert scale == SCALE_MIN


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_platt_refuses_one_class(label: float) -> None:
    """A slice of one kind says nothing about the other."""
    with pytest.raises(ValueError, match="both classes"):
        fit_platt(np.zeros(5), np.full(5, label))


def test_prior_correction_gives_back_the_share_of_the_world() -> None:
    """A model that learned 1 in 8 and says so on average says 1 in 120 after the correction."""
    raw = np.array([np.log(1 / 7)])
    corrected = Calibration(prior=prior_correction(1 / 120, 1 / 8)).apply(raw)
    assert sigmoid(corrected)[0] == pytest.approx(1 / 120)


def test_prior_correction_refuses_impossible_shares() -> None:
    """A share of 0 or 1 has no odds."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        prior_correction(0.0, 0.5)


def test_calibration_travels_as_plain_values() -> None:
    """A calibration read back from a checkpoint's values is the same."""
    calibration = Calibration(0.7, -0.1, -2.5)
    assert Calibration.from_dict(calibration.to_dict()) == calibration


def test_sigmoid_does_not_overflow() -> None:
    """Logits far out give 0 and 1 without a warning."""
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_calibration_error_sees_overconfidence_and_passes_truth() -> None:
    """Probabilities that are the true shares have an error near 0; twice as many in logits have not."""
    random = np.random.default_rng(1)
    logit = random.normal(-2, 1.5, 100_000)
    label = (random.random(len(logit)) < sigmoid(logit)).astype(np.float64)
    assert expected_calibration_error(sigmoid(logit), label) < 0.004
    assert expected_calibration_error(sigmoid(2 * logit), label) > 0.03

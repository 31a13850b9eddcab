from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import log_softmax as scipy_log_softmax

from graph_transformer.calibration import (
    Calibration,
    calibration_noise,
    expected_calibration_error,
    log_softmax,
    prior_correction,
    probability_of,
    sigmoid,
)
from graph_transformer.target import Kind, Target


def target(kind: Kind, classes: int = 0) -> Target:
    """A target of a kind."""
    return Target(kind, "items", event_level=False, classes=tuple("abcdef"[:classes]))


def test_sigmoid_and_softmax_are_scipys() -> None:
    """Both agree with scipy, and logits far out give 0 and 1 without a warning."""
    logit = np.random.default_rng(0).normal(0, 5, (50, 4))
    assert sigmoid(logit) == pytest.approx(expit(logit), abs=1e-15)
    assert log_softmax(logit) == pytest.approx(scipy_log_softmax(logit, axis=1), abs=1e-12)
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
        assert log_softmax(np.array([[0.0, 1e4]])).tolist() == [[-1e4, 0.0]]


def test_probabilities_have_the_form_of_their_target() -> None:
    """One number for yes or no, shares that add up to 1 for one of many, one each for several; none for a number."""
    output = np.random.default_rng(1).normal(size=(5, 3))
    assert probability_of(target(Kind.BINARY), output[:, :1]).shape == (5,)
    assert probability_of(target(Kind.MULTICLASS, 3), output).sum(axis=1) == pytest.approx(1.0)
    assert probability_of(target(Kind.MULTILABEL, 3), output).tolist() == sigmoid(output).tolist()
    with pytest.raises(ValueError, match="quantiles"):
        probability_of(target(Kind.REGRESSION), np.zeros((5, 7)))


def test_prior_correction_gives_back_the_share_of_the_world() -> None:
    """A model that learned 1 in 8 and says so on average says 1 in 120 after the correction."""
    raw = np.array([[np.log(1 / 7)]])
    corrected = Calibration(prior=prior_correction(1 / 120, 1 / 8)).apply(raw)
    assert sigmoid(corrected)[0, 0] == pytest.approx(1 / 120)


def test_prior_correction_refuses_impossible_shares() -> None:
    """A share of 0 or 1 has no odds."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        prior_correction(0.0, 0.5)


def test_calibration_error_sees_overconfidence_and_passes_truth() -> None:
    """Probabilities that are the true shares have an error near 0; twice as many in logits have not."""
    random = np.random.default_rng(1)
    logit = random.normal(-2, 1.5, 100_000)
    label = (random.random(len(logit)) < sigmoid(logit)).astype(np.float64)
    assert expected_calibration_error(sigmoid(logit), label) < 0.004
    assert expected_calibration_error(sigmoid(2 * logit), label) > 0.03


@pytest.mark.parametrize("count", [300, 5000])
def test_noise_is_the_error_that_true_probabilities_show(count: int) -> None:
    """It agrees with the mean error of labels drawn from the probabilities, and shrinks with more of them."""
    random = np.random.default_rng(2)
    probability = sigmoid(random.normal(-1, 1.5, count))
    drawn = [
        expected_calibration_error(probability, (random.random(count) < probability).astype(np.float64))
        for _ in range(300)
    ]
    assert calibration_noise(probability) == pytest.approx(np.mean(drawn), rel=0.05)
    assert calibration_noise(np.repeat(probability, 4)) == pytest.approx(calibration_noise(probability) / 2, rel=0.05)

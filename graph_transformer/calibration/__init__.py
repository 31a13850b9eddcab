"""From a model's outputs to answers that can be read as such: probabilities that come true, intervals that hold.

    raw float64[B, outputs] ─► + prior of sampled negatives ─► map ─► logits, or quantiles that do not cross

The map is fitted on a later slice than the training examples and travels in the checkpoint.
"""

from graph_transformer.calibration.fit import fit_calibration
from graph_transformer.calibration.maps import SCALE_MIN, Affine, Calibration, Conformal, Isotonic
from graph_transformer.calibration.probability import (
    calibration_noise,
    expected_calibration_error,
    log_softmax,
    prior_correction,
    probability_of,
    sigmoid,
)

__all__ = [
    "SCALE_MIN",
    "Affine",
    "Calibration",
    "Conformal",
    "Isotonic",
    "calibration_noise",
    "expected_calibration_error",
    "fit_calibration",
    "log_softmax",
    "prior_correction",
    "probability_of",
    "sigmoid",
]

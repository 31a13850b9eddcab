"""From a model's logit to a probability that can be read as one.

Two corrections, in this order: the log prior of sampled negatives (training saw more positives than the world has), and
Platt's scale and offset, fitted on a later slice than the training examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE_MIN = 1e-3
"""A smaller scale, or a negative one, would undo the ranking: the slice was too small or unlike the training."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """logit = scale * (raw + prior) + offset; the ranking stays as it is."""

    scale: float = 1.0
    offset: float = 0.0
    prior: float = 0.0

    def apply(self, raw: Floats) -> Floats:
        """Return the calibrated logits float64[n]."""
        return self.scale * (raw + self.prior) + self.offset

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Calibration:
        """Build from `to_dict`'s values; raises TypeError for others."""
        return cls(**values)


def sigmoid(logit: Floats) -> Floats:
    """Return 1 / (1 + e^-logit) without overflow at either end."""
    positive = logit >= 0
    exponent = np.exp(np.where(positive, -logit, logit))
    return np.where(positive, 1.0, exponent) / (1.0 + exponent)


def prior_correction(positive_share: float, trained_share: float) -> float:
    """Return what to add to logits of a model that saw `trained_share` positives, where the world has `positive_share`.

    After King and Zeng, "Logistic Regression in Rare Events Data" (2001).
    """
    if not (0.0 < positive_share < 1.0 and 0.0 < trained_share < 1.0):
        raise ValueError(f"shares lie between 0 and 1, found {positive_share} and {trained_share}")
    return math.log(positive_share / (1.0 - positive_share)) - math.log(trained_share / (1.0 - trained_share))


def fit_platt(logit: Floats, label: Floats, *, steps: int = 50) -> tuple[float, float]:
    """Return (scale, offset) that minimize the log loss of scale * logit + offset, by Newton's method.

    Labels are drawn in by Platt's rule ((n+ + 1) / (n+ + 2) and 1 / (n- + 2)), so that separable data stay finite.
    After Platt, "Probabilistic outputs for support vector machines" (1999).

    Raises:
        ValueError: one of the two classes is missing.
    """
    positives = float(label.sum())
    negatives = len(label) - positives
    if positives < 1 or negatives < 1:
        raise ValueError("calibration needs examples of both classes")
    target = np.where(label > 0.5, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([logit, np.ones_like(logit)], axis=1)
    weights = np.array([1.0, 0.0])
    ridge = np.diag([1e-6, 1e-6])
    loss = _log_loss(design @ weights, target)
    for _ in range(steps):
        probability = sigmoid(design @ weights)
        gradient = design.T @ (probability - target)
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        while (new := _log_loss(design @ (weights - step), target)) > loss and np.abs(step).max() > 1e-12:
            step = step / 2  # Newton overshoots where the curvature is nearly flat
        weights, loss = weights - step, new
        if np.abs(step).max() < 1e-9:
            break
    return max(float(weights[0]), SCALE_MIN), float(weights[1])


def _log_loss(logit: Floats, target: Floats) -> float:
    return float((np.logaddexp(0.0, logit) - target * logit).sum())


def expected_calibration_error(probability: Floats, label: Floats, *, bins: int = 15) -> float:
    """Return the mean gap between predicted and observed share over bins of equally many examples, weighted by size.

    Bins of equal count, not of equal width: where 1 in 120 is positive, nearly everything lies in the first tenth.
    """
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(probability[part].mean() - label[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(order))

"""Several logits: temperature and class biases of one choice among many, Platt's method for each of many yes or no."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.binary import POSITIVES_MIN, fit_platt
from graph_transformer.calibration.choice import Fit, choose
from graph_transformer.calibration.maps import SCALE_MIN, Affine
from graph_transformer.calibration.probability import log_softmax

BIAS_CLASSES_MAX = 64
"""More classes have too few examples each, and Newton's curvature takes the square of their number."""
BIAS_PRIOR = 1.0
"""Pulls biases towards 0 as much as a single example does: a class that the slice lacks keeps a finite one."""
EXAMPLES_MIN = 50

Floats = NDArray[np.float64]


def fit_multiclass(logit: Floats, label: Floats) -> tuple[str, Affine]:
    """Return the name and the map of the method with the least cross-validated log loss.

    logit float64[n, classes], label float64[n] the class's index. Temperature is Guo and others', "On Calibration of
    Modern Neural Networks" (2017).
    """
    if len(label) < EXAMPLES_MIN:
        return "none", Affine()
    fits: dict[str, Fit] = {"none": _unchanged, "temperature": fit_temperature}
    flexible: dict[str, Fit] = {"bias": fit_bias} if logit.shape[1] <= BIAS_CLASSES_MAX else {}
    name = choose(fits, flexible, softmax_losses, logit, label)
    found = {**fits, **flexible}[name](logit, label)
    assert isinstance(found, Affine)
    return name, found


def fit_multilabel(logit: Floats, label: Floats) -> tuple[str, Affine]:
    """Return Platt's scale and offset for each class, float64[n, classes] both; 1 and 0 where one kind is too rare."""
    pairs = [
        fit_platt(logit[:, each], label[:, each])
        if POSITIVES_MIN <= label[:, each].sum() <= len(label) - POSITIVES_MIN
        else (1.0, 0.0)
        for each in range(logit.shape[1])
    ]
    return "platt", Affine(tuple(scale for scale, _ in pairs), tuple(offset for _, offset in pairs))


def softmax_losses(logit: Floats, label: Floats) -> Floats:
    """Return the log loss of each example float64[n], of logits float64[n, classes] for class indices float64[n]."""
    losses: Floats = -log_softmax(logit)[np.arange(len(label)), label.astype(np.int64)]
    return losses


def fit_temperature(logit: Floats, label: Floats) -> Affine:
    """Return the one scale of all logits that minimizes the log loss."""
    return _newton(logit, label, biases=False)


def fit_bias(logit: Floats, label: Floats) -> Affine:
    """Return the scale and an offset per class that minimize the log loss."""
    return _newton(logit, label, biases=True)


def _newton(logit: Floats, label: Floats, *, biases: bool, steps: int = 50) -> Affine:
    classes = logit.shape[1]
    true = np.zeros_like(logit)
    true[np.arange(len(label)), label.astype(np.int64)] = 1.0
    weights = np.concatenate([[1.0], np.zeros(classes)])

    def loss_of(weights: Floats) -> float:
        loss = softmax_losses(weights[0] * logit + weights[1:], label).sum()
        return float(loss + 0.5 * BIAS_PRIOR * (weights[1:] ** 2).sum())

    loss = loss_of(weights)
    used = len(weights) if biases else 1
    for _ in range(steps):
        gradient, curvature = _derivatives(logit, true, weights)
        step = np.zeros_like(weights)
        step[:used] = np.linalg.solve(curvature[:used, :used], gradient[:used])
        while (new := loss_of(weights - step)) > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        weights, loss = weights - step, new
        if np.abs(step).max() < 1e-9:
            break
    offset = tuple(weights[1:].tolist()) if biases else (0.0,)
    return Affine((max(float(weights[0]), SCALE_MIN),), offset)


def _derivatives(logit: Floats, true: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return gradient float64[1 + classes] and curvature of the log loss by the scale and the biases."""
    share = np.exp(log_softmax(weights[0] * logit + weights[1:]))
    gap = share - true
    gradient = np.concatenate([[(gap * logit).sum()], gap.sum(axis=0) + BIAS_PRIOR * weights[1:]])
    centered = share * (logit - (share * logit).sum(axis=1, keepdims=True))
    curvature = np.empty((len(weights), len(weights)))
    curvature[0, 0] = (centered * logit).sum() + 1e-6
    curvature[0, 1:] = curvature[1:, 0] = centered.sum(axis=0)
    curvature[1:, 1:] = np.diag(share.sum(axis=0) + BIAS_PRIOR) - share.T @ share
    return gradient, curvature


def _unchanged(_: Floats, __: Floats) -> Affine:
    return Affine()

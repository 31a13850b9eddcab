"""Probabilities from logits, and how far they can be read as such."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from graph_transformer.target import Kind, Target

Floats = NDArray[np.float64]


def sigmoid(logit: Floats) -> Floats:
    """Return 1 / (1 + e^-logit) without overflow at either end."""
    positive = logit >= 0
    exponent = np.exp(np.where(positive, -logit, logit))
    return np.where(positive, 1.0, exponent) / (1.0 + exponent)


def log_softmax(logit: Floats) -> Floats:
    """Return the logs of the shares of e^logit along the last axis, without overflow."""
    shifted = logit - logit.max(axis=-1, keepdims=True)
    logs: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def probability_of(target: Target, output: Floats) -> Floats:
    """Return what calibrated logits float64[B, outputs] say of classes.

    float64[B] of a binary target (of a ranking: of each item), float64[B, classes] of the others.

    Raises:
        ValueError: the target is a number.
    """
    if target.is_number:
        raise ValueError(f"a {target.kind.value} target has quantiles, no probabilities")
    if target.kind is Kind.MULTICLASS:
        return np.exp(log_softmax(output))
    return sigmoid(output) if target.kind is Kind.MULTILABEL else sigmoid(output[:, 0])


def prior_correction(positive_share: float, trained_share: float) -> float:
    """Return what to add to logits of a model that saw `trained_share` positives, where the world has `positive_share`.

    After King and Zeng, "Logistic Regression in Rare Events Data" (2001).
    """
    if not (0.0 < positive_share < 1.0 and 0.0 < trained_share < 1.0):
        raise ValueError(f"shares lie between 0 and 1, found {positive_share} and {trained_share}")
    return math.log(positive_share / (1.0 - positive_share)) - math.log(trained_share / (1.0 - trained_share))


def expected_calibration_error(probability: Floats, label: Floats, *, bins: int = 15) -> float:
    """Return the mean gap between predicted and observed share over bins of equally many examples, weighted by size.

    Bins of equal count, not of equal width: where 1 in 120 is positive, nearly everything lies in the first tenth.
    """
    gaps = [abs(float((probability[part] - label[part]).sum())) for part in _bins(probability, bins)]
    return sum(gaps) / len(probability)


def calibration_noise(probability: Floats, *, bins: int = 15) -> float:
    """Return the expected calibration error that probabilities which are true would show, by chance alone.

    The gap of a bin is then nearly normal around 0 with the variance of its labels. A few hundred examples show some
    hundredths: an error is to be read beside this.
    """
    spreads = [float((probability[part] * (1.0 - probability[part])).sum()) for part in _bins(probability, bins)]
    return sum(math.sqrt(2.0 * spread / math.pi) for spread in spreads) / len(probability)


def _bins(probability: Floats, bins: int) -> list[NDArray[np.int64]]:
    """Return the positions of the examples of each bin, from low to high."""
    order = np.argsort(probability, kind="stable")
    return [part.astype(np.int64) for part in np.array_split(order, min(bins, len(order)))]

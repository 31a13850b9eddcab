"""Figures of answers beside what happened: the same ones that training prints, on numpy alone.

Each takes columns of n examples and gives NaN where it has no meaning (a ranking of positives without negatives).
Definitions are scikit-learn's; the calibration error has bins of equally many examples, as in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CALIBRATION_BINS = 15
# A probability of exactly 0 or 1 that is wrong costs so much, not infinity.
_PROBABILITY_MIN = 1e-15


@dataclass(frozen=True, slots=True)
class BinaryFigures:
    """Yes or no. `base_rate` is what `mean_prediction` should be; a calibration error is read beside its noise."""

    roc_auc: float
    average_precision: float
    log_loss: float
    brier: float
    calibration_error: float
    calibration_noise: float
    mean_prediction: float
    base_rate: float


@dataclass(frozen=True, slots=True)
class ChoiceFigures:
    """One of several classes; the calibration error is that of the first choice's probability."""

    accuracy: float
    log_loss: float
    calibration_error: float
    calibration_noise: float


@dataclass(frozen=True, slots=True)
class NumberFigures:
    """Numbers: the median's error, the mean pinball loss of all quantiles, and what the widest interval holds."""

    mean_absolute_error: float
    pinball_loss: float
    coverage: float
    mean_prediction: float
    mean_outcome: float


@dataclass(frozen=True, slots=True)
class ListFigures:
    """Lists whose user did something within the delay; `followed_ratio` is their share of all lists."""

    hit_ratio: float
    mean_reciprocal_rank: float
    ndcg: float
    followed_ratio: float


Figures = BinaryFigures | ChoiceFigures | NumberFigures | ListFigures


def binary_figures(probability: Floats, label: Floats) -> BinaryFigures:
    """Figures of probabilities [n] and labels [n] of 0 and 1."""
    clipped = np.clip(probability, _PROBABILITY_MIN, 1.0 - _PROBABILITY_MIN)
    losses = -(label * np.log(clipped) + (1.0 - label) * np.log1p(-clipped))
    return BinaryFigures(
        roc_auc=roc_auc(probability, label),
        average_precision=average_precision(probability, label),
        log_loss=_mean(losses),
        brier=_mean((probability - label) ** 2),
        calibration_error=calibration_error(probability, label),
        calibration_noise=calibration_noise(probability),
        mean_prediction=_mean(probability),
        base_rate=_mean(label),
    )


def choice_figures(probability: Floats, label: NDArray[np.int64]) -> ChoiceFigures:
    """Figures of probabilities [n, classes] and the index of the true class [n]."""
    first = probability.argmax(axis=1)
    right = (first == label).astype(np.float64)
    chosen = probability[np.arange(len(label)), first]
    truth = probability[np.arange(len(label)), label]
    return ChoiceFigures(
        accuracy=_mean(right),
        log_loss=_mean(-np.log(np.clip(truth, _PROBABILITY_MIN, 1.0))),
        calibration_error=calibration_error(chosen, right),
        calibration_noise=calibration_noise(chosen),
    )


def number_figures(quantiles: Floats, label: Floats, levels: Floats) -> NumberFigures:
    """Figures of quantiles [n, levels] and true numbers [n]; steps of a forecast count as examples of their own."""
    median = quantiles[:, int(np.abs(levels - 0.5).argmin())]
    short = label[:, None] - quantiles
    inside = (label >= quantiles[:, 0]) & (label <= quantiles[:, -1])
    return NumberFigures(
        mean_absolute_error=_mean(np.abs(label - median)),
        pinball_loss=_mean(np.maximum(levels * short, (levels - 1.0) * short)),
        coverage=_mean(inside.astype(np.float64)),
        mean_prediction=_mean(median),
        mean_outcome=_mean(label),
    )


def roc_auc(score: Floats, label: Floats) -> float:
    """Return the probability that a positive stands above a negative, ties half."""
    positives = float(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2.0)[inverse]
    return float((rank[label > 0].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def average_precision(score: Floats, label: Floats) -> float:
    """Return the sum over thresholds of precision times the recall gained, equal scores as one threshold."""
    positives = float(label.sum())
    if not positives or positives == len(label):
        return math.nan
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found = np.cumsum(label[order])[ends]
    return float((np.diff(found, prepend=0.0) / positives * found / (ends + 1)).sum())


def calibration_error(probability: Floats, label: Floats) -> float:
    """Return the mean gap between predicted and observed share over bins of equally many examples."""
    if not len(probability):
        return math.nan
    return sum(abs(float((probability[p] - label[p]).sum())) for p in _bins(probability)) / len(probability)


def calibration_noise(probability: Floats) -> float:
    """Return the calibration error that true probabilities would show on as many examples, by chance alone."""
    if not len(probability):
        return math.nan
    spreads = [float((probability[p] * (1.0 - probability[p])).sum()) for p in _bins(probability)]
    return sum(math.sqrt(2.0 * max(0.0, spread) / math.pi) for spread in spreads) / len(probability)


def list_figures(ranks: list[list[int]], lengths: list[int], wanted: list[int], *, lists: int) -> ListFigures:
    """Figures of lists: `ranks` of each one's items that were taken (from 1), its length, and how many were taken.

    `lists` counts those whose user did nothing, too. NDCG is of binary gains, against the best list of that length.
    """
    if not ranks:
        return ListFigures(math.nan, math.nan, math.nan, 0.0 if lists else math.nan)
    gains = [sum(1.0 / math.log2(rank + 1) for rank in found) for found in ranks]
    ideals = [
        sum(1.0 / math.log2(rank + 1) for rank in range(1, min(length, want) + 1))
        for length, want in zip(lengths, wanted, strict=True)
    ]
    return ListFigures(
        hit_ratio=sum(bool(found) for found in ranks) / len(ranks),
        mean_reciprocal_rank=sum(1.0 / min(found) for found in ranks if found) / len(ranks),
        ndcg=sum(gain / ideal for gain, ideal in zip(gains, ideals, strict=True) if ideal) / len(ranks),
        followed_ratio=len(ranks) / lists,
    )


def _bins(probability: Floats) -> list[NDArray[np.int64]]:
    order = np.argsort(probability, kind="stable")
    return [part.astype(np.int64) for part in np.array_split(order, min(_CALIBRATION_BINS, len(order)))]


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan

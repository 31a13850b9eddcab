"""Quantiles whose intervals hold as often as they say: conformalized quantile regression, pair by pair.

After Romano, Patterson and Candès, "Conformalized Quantile Regression" (2019).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.choice import FOLDS
from graph_transformer.calibration.maps import Conformal
from graph_transformer.target import MEDIAN, QUANTILES

Floats = NDArray[np.float64]

PAIRS = tuple((low, len(QUANTILES) - 1 - low) for low in range(MEDIAN))
"""Positions of the quantiles that bound an interval, the widest first."""


def nominal(pair: tuple[int, int]) -> float:
    """Return the share of labels an interval promises to hold."""
    return round(QUANTILES[pair[1]] - QUANTILES[pair[0]], 9)


def fit_conformal(raw: Floats, label: Floats, *, steps: int = 1) -> tuple[str, Conformal]:
    """Return the shifts of quantiles float64[n, steps * QUANTILES] for labels float64[n] or [n, steps]."""
    quantiles = np.sort(raw.reshape(len(raw), steps, len(QUANTILES)), axis=-1)
    truth = label.reshape(len(raw), steps)
    shift = np.zeros((steps, len(QUANTILES)))
    for step in range(steps):
        shift[step, MEDIAN] = median_shift(truth[:, step] - quantiles[:, step, MEDIAN])
        for low, high in PAIRS:
            margin = conformal_margin(quantiles[:, step, low], quantiles[:, step, high], truth[:, step], (low, high))
            shift[step, low], shift[step, high] = -margin, margin
    return "conformal", Conformal(steps, tuple(shift.reshape(-1).tolist()))


def conformal_margin(low: Floats, high: Floats, label: Floats, pair: tuple[int, int]) -> float:
    """Return by how much an interval has to widen (or, below zero, may narrow) to hold its share of the next labels.

    The ceil((n + 1) * share)-th least of how far labels lie outside; with fewer examples than that takes, the greatest.
    """
    outside = np.sort(np.maximum(low - label, label - high))
    # Rounded first: 0.9 * 10 is a little more than 9 in binary.
    rank = math.ceil(round((len(label) + 1) * nominal(pair), 9))
    return float(outside[min(rank, len(label)) - 1])


def median_shift(residual: Floats) -> float:
    """Return the median residual if shifting by it lowers the held-out absolute error clearly, else 0.

    Clearly: by more than the standard error of the gain, over folds.
    """
    if len(residual) < 2 * FOLDS:
        return 0.0
    fold = np.arange(len(residual)) % FOLDS
    gain = np.empty(len(residual))
    for each in range(FOLDS):
        out = fold == each
        gain[out] = np.abs(residual[out]) - np.abs(residual[out] - np.median(residual[~out]))
    is_clear = gain.mean() > gain.std() / math.sqrt(len(gain))
    return float(np.median(residual)) if is_clear else 0.0

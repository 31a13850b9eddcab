"""Quantiles whose intervals hold as often as they say: conformalized quantile regression, pair by pair.

    quantiles, labels ─► scale (the one that holds best on held-out folds) ─► shift of the median, shifts of pairs

After Romano, Patterson and Candès, "Conformalized Quantile Regression" (2019). The median moves by what lowers the
absolute error, so that the value is calibrated as well as its intervals.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.choice import FOLDS, held_out
from graph_transformer.calibration.maps import Conformal, Scale, moved, to_scale
from graph_transformer.target import MEDIAN, QUANTILES

Floats = NDArray[np.float64]

PAIRS = tuple((low, len(QUANTILES) - 1 - low) for low in range(MEDIAN))
"""Positions of the quantiles that bound an interval, the widest first."""
LEVELS = np.arange(0.1, 0.901, 0.01)
"""Shifts of the median that are tried: what lies between a tenth and nine tenths of how far labels are from it."""


def nominal(pair: tuple[int, int]) -> float:
    """Return the share of labels an interval promises to hold."""
    return round(QUANTILES[pair[1]] - QUANTILES[pair[0]], 9)


def fit_conformal(raw: Floats, label: Floats, *, steps: int = 1) -> tuple[str, Conformal]:
    """Return the shifts of quantiles float64[n, steps * QUANTILES] for labels float64[n] or [n, steps].

    Labels of which none is below zero are shifted up to zero and not beyond; on the logarithmic scale, where a shift is
    a share, if that is clearly better on examples it was not fitted on.
    """
    truth = label.reshape(len(raw), steps)
    if bool((truth < 0.0).any()):
        return "conformal", shifts(raw, truth, Scale.PLAIN)
    scale = Scale.ABOVE_ZERO
    if len(raw) >= 2 * FOLDS:
        fold = np.arange(len(raw)) % FOLDS
        plain, log = (held_out(partial(shifts, scale=each), losses, raw, truth, fold) for each in (scale, Scale.LOG))
        scale = Scale.LOG if is_clear(plain - log) else scale
    return f"conformal_{scale.value}", shifts(raw, truth, scale)


def shifts(raw: Floats, truth: Floats, scale: Scale) -> Conformal:
    """Return the shifts on a scale for labels float64[n, steps]."""
    steps = truth.shape[1]
    quantiles = np.sort(raw.reshape(len(raw), steps, len(QUANTILES)), axis=-1)
    placed, wanted = to_scale(quantiles, scale), to_scale(truth, scale)
    shift = np.zeros((steps, len(QUANTILES)))
    for step in range(steps):
        shift[step, MEDIAN] = median_shift(quantiles[:, step, MEDIAN], truth[:, step], scale)
        for low, high in PAIRS:
            margin = conformal_margin(placed[:, step, low], placed[:, step, high], wanted[:, step], (low, high))
            shift[step, low], shift[step, high] = -margin, margin
    return Conformal(steps, tuple(shift.reshape(-1).tolist()), scale)


def losses(output: Floats, truth: Floats) -> Floats:
    """Return the pinball loss of each example float64[n], the median's counted twice as in training."""
    quantiles = output.reshape(*truth.shape, len(QUANTILES))
    error, level = truth[..., None] - quantiles, np.asarray(QUANTILES)
    pinball = np.maximum(level * error, (level - 1.0) * error).mean(axis=1)
    return np.asarray(pinball.mean(axis=1) + pinball[:, MEDIAN])


def conformal_margin(low: Floats, high: Floats, label: Floats, pair: tuple[int, int]) -> float:
    """Return by how much an interval has to widen (or, below zero, may narrow) to hold its share of the next labels.

    The ceil((n + 1) * share)-th least of how far labels lie outside; with fewer examples than that takes, the greatest.
    """
    outside = np.sort(np.maximum(low - label, label - high))
    # Rounded first: 0.9 * 10 is a little more than 9 in binary.
    rank = math.ceil(round((len(label) + 1) * nominal(pair), 9))
    return float(outside[min(rank, len(label)) - 1])


def median_shift(median: Floats, label: Floats, scale: Scale = Scale.PLAIN) -> float:
    """Return the shift with the least absolute error if it lowers that of held-out labels clearly, else 0."""
    if len(label) < 2 * FOLDS:
        return 0.0
    fold = np.arange(len(label)) % FOLDS
    gain = np.empty(len(label))
    for each in range(FOLDS):
        out = fold == each
        after = moved(median[out], best_shift(median[~out], label[~out], scale), scale)
        gain[out] = np.abs(label[out] - median[out]) - np.abs(label[out] - after)
    return best_shift(median, label, scale) if is_clear(gain) else 0.0


def best_shift(median: Floats, label: Floats, scale: Scale) -> float:
    """Return the shift after which the absolute error is least, in the label's own unit whatever the scale."""
    tried = np.quantile(to_scale(label, scale) - to_scale(median, scale), LEVELS)
    error = [np.abs(moved(median, each, scale) - label).mean() for each in tried]
    return float(tried[int(np.argmin(error))])


def is_clear(gain: Floats) -> bool:
    """Return whether the mean gain of examples is more than its standard error."""
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))

"""Quantiles whose intervals hold as often as they say: conformalized quantile regression, pair by pair.

    quantiles, labels ─► scale ─► median: left, shifted or put on a rising line ─► shifts of the pairs around it

After Romano, Patterson and Candès, "Conformalized Quantile Regression" (2019). The median goes where the absolute error
is least, so that the value is calibrated as well as its intervals. Every choice is made on held-out folds of the slice:
the simpler one stays unless it is beaten clearly.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.choice import FOLDS, held_out, is_clear
from graph_transformer.calibration.maps import NO_LINE, Conformal, Line, Scale, lined, moved, to_scale
from graph_transformer.target import MEDIAN, QUANTILES

Floats = NDArray[np.float64]

PAIRS = tuple((low, len(QUANTILES) - 1 - low) for low in range(MEDIAN))
"""Positions of the quantiles that bound an interval, the widest first."""
LEVELS = np.linspace(0.1, 0.9, 33)
"""Shifts of the median that are tried: what lies between a tenth and nine tenths of how far labels are from it."""
PART_LEAST, PARTS_MOST = 50, 64
"""A knot of a line rests on so many examples, at least; and a line has so many knots, at most."""


class Place(NamedTuple):
    """Where a median goes: on a line, or without one by a shift on a scale."""

    shift: float = 0.0
    line: Line = NO_LINE
    scale: Scale = Scale.PLAIN

    def apply(self, median: Floats) -> Floats:
        """Return medians float64[n] put there."""
        return moved(median, self.shift, self.scale) if self.line == NO_LINE else lined(median, self.line, self.scale)


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
        fold = _dealt(len(raw))
        plain, log = (held_out(partial(shifts, scale=each), losses, raw, truth, fold) for each in (scale, Scale.LOG))
        scale = Scale.LOG if is_clear(plain - log) else scale
    return f"conformal_{scale.value}", shifts(raw, truth, scale)


def shifts(raw: Floats, truth: Floats, scale: Scale) -> Conformal:
    """Return the shifts on a scale, and lines if medians have any, for labels float64[n, steps]."""
    steps = truth.shape[1]
    quantiles = np.sort(raw.reshape(len(raw), steps, len(QUANTILES)), axis=-1)
    placed, wanted = to_scale(quantiles, scale), to_scale(truth, scale)
    shift = np.zeros((steps, len(QUANTILES)))
    lines = []
    for step in range(steps):
        place = place_of(quantiles[:, step, MEDIAN], truth[:, step], scale)
        shift[step, MEDIAN] = place.shift
        lines.append(place.line)
        for low, high in PAIRS:
            margin = conformal_margin(placed[:, step, low], placed[:, step, high], wanted[:, step], (low, high))
            shift[step, low], shift[step, high] = -margin, margin
    has_lines = any(line != NO_LINE for line in lines)
    return Conformal(steps, tuple(shift.reshape(-1).tolist()), scale, tuple(lines) if has_lines else ())


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


def place_of(median: Floats, label: Floats, scale: Scale = Scale.PLAIN) -> Place:
    """Return where medians float64[n] go for labels float64[n]; few of them stay where they are."""
    best, *others = [partial(fit, scale=scale) for fit in (kept, shifted, on_line)]
    if len(label) < 2 * FOLDS:
        return best(median, label)
    error, fold = absolute(best(median, label).apply(median), label), _dealt(len(label))
    for fit in others:
        other = held_out(fit, absolute, median, label, fold)
        if is_clear(error - other):
            best, error = fit, other
    return best(median, label)


def _dealt(count: int) -> NDArray[np.int64]:
    """Return the fold of each of so many examples, int64[n]."""
    return np.arange(count) % FOLDS


def absolute(value: Floats, label: Floats) -> Floats:
    """Return the absolute error of each example float64[n]."""
    return np.abs(value - label)


def kept(_median: Floats, _label: Floats, scale: Scale) -> Place:
    """Return the place where medians are."""
    return Place(scale=scale)


def shifted(median: Floats, label: Floats, scale: Scale) -> Place:
    """Return the shift after which the absolute error is least, in the label's own unit whatever the scale."""
    tried = np.quantile(to_scale(label, scale) - to_scale(median, scale), LEVELS)
    error = [np.abs(moved(median, each, scale) - label).mean() for each in tried]
    return Place(float(tried[int(np.argmin(error))]), scale=scale)


def on_line(median: Floats, label: Floats, scale: Scale) -> Place:
    """Return the line through medians of labels, part by part of the answers; parts that would not rise are joined."""
    order = np.argsort(median, kind="stable")
    joined: list[NDArray[np.intp]] = []
    for part in np.array_split(order, max(1, min(PARTS_MOST, len(order) // PART_LEAST))):
        joined.append(part)
        while len(joined) > 1 and not _rise(median, label, joined[-2], joined[-1]):
            joined[-2:] = [np.concatenate(joined[-2:])]
    line = tuple(tuple(float(np.median(values[part])) for part in joined) for values in (median, label))
    return Place(0.0, (line[0], line[1]), scale)


def _rise(median: Floats, label: Floats, low: NDArray[np.intp], high: NDArray[np.intp]) -> bool:
    return all(bool(np.median(values[low]) < np.median(values[high])) for values in (median, label))

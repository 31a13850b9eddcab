"""One logit: temperature, Platt's scale and offset, or isotonic regression, by which holds best on others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.choice import Fit, choose
from graph_transformer.calibration.maps import SCALE_MIN, Affine, Isotonic, Map
from graph_transformer.calibration.probability import sigmoid

POSITIVES_MIN = 10
"""Fewer of one kind say next to nothing: the logits stay as they are."""
ISOTONIC_MIN = 50
"""Fewer of one kind fit two numbers, not a line of pieces."""
PIECES_MAX = 32
PIECE_MIN = 10
"""Examples of each kind behind every knot: below, its logit would be off by more than 0.6 as often as not."""
KNOT_GAP = 1e-9
"""Knots closer than this, relative to where they lie, are one: rounding alone tells them apart."""
RIDGE = 1e-6

Floats = NDArray[np.float64]


def fit_binary(logit: Floats, label: Floats) -> tuple[str, Map]:
    """Return the name and the map of the method with the least cross-validated log loss.

    Raises:
        ValueError: one of the two classes is missing.
    """
    rarer = min(_counts(label))
    if rarer < POSITIVES_MIN:
        return "none", Affine()
    fits = {"none": _unchanged, "temperature": temperature_map, "platt": platt_map}
    flexible: Mapping[str, Fit] = {"isotonic": fit_isotonic} if rarer >= ISOTONIC_MIN else {}
    name = choose(fits, flexible, log_losses, logit, label)
    return name, {**fits, **flexible}[name](logit, label)


def log_losses(logit: Floats, label: Floats) -> Floats:
    """Return the log loss of each logit float64[n] for labels between 0 and 1."""
    losses: Floats = np.logaddexp(0.0, logit) - label * logit
    return losses


def fit_platt(logit: Floats, label: Floats, *, steps: int = 50) -> tuple[float, float]:
    """Return (scale, offset) that minimize the log loss of scale * logit + offset, by Newton's method.

    Labels are drawn in by Platt's rule ((n+ + 1) / (n+ + 2) and 1 / (n- + 2)), so that separable data stay finite.
    After Platt, "Probabilistic outputs for support vector machines" (1999).

    Raises:
        ValueError: one of the two classes is missing.
    """
    design = np.stack([logit, np.ones_like(logit)], axis=1)
    scale, offset = _newton(design, _drawn_in(label), np.array([1.0, 0.0]), steps)
    if scale < SCALE_MIN:  # the offset that fits the scale which is kept
        share = float(_drawn_in(label).mean())
        return SCALE_MIN, float(np.log(share / (1.0 - share))) - SCALE_MIN * float(logit.mean())
    return float(scale), float(offset)


def fit_temperature(logit: Floats, label: Floats, *, steps: int = 50) -> float:
    """Return the scale (one over the temperature) that minimizes the log loss of scale * logit; raises as Platt's."""
    scale = _newton(logit[:, None], _drawn_in(label), np.array([1.0]), steps)[0]
    return max(float(scale), SCALE_MIN)


def platt_map(logit: Floats, label: Floats) -> Affine:
    """Return Platt's method as a map."""
    scale, offset = fit_platt(logit, label)
    return Affine((scale,), (offset,))


def temperature_map(logit: Floats, label: Floats) -> Affine:
    """Return temperature as a map."""
    return Affine((fit_temperature(logit, label),))


def fit_isotonic(logit: Floats, label: Floats) -> Isotonic:
    """Return isotonic regression with knots at the means of its blocks, at most PIECES_MAX + 1 of them.

    Blocks are joined until each holds both kinds, so that every knot has a finite logit; beyond the knots it goes on
    with Platt's slope. After Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates" (2002).

    Raises:
        ValueError: one of the two classes is missing.
    """
    from sklearn.isotonic import isotonic_regression

    positives, negatives = _counts(label)
    values, inverse, counts = np.unique(logit, return_inverse=True, return_counts=True)
    positive = np.bincount(inverse, label, len(values))
    share = isotonic_regression(positive / counts, sample_weight=counts)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(share) > 0) + 1])
    blocks = np.stack([np.add.reduceat(each, starts) for each in (positive, counts - positive, values * counts)])
    least = max(PIECE_MIN, int(np.ceil(positives / PIECES_MAX))), min(PIECE_MIN, int(negatives))
    joined = _joined(blocks, least)
    x, y = joined[2] / (joined[0] + joined[1]), np.log(joined[0] / joined[1])
    apart = np.concatenate([[True], np.diff(x) > KNOT_GAP * (1.0 + np.abs(x[1:]))])
    x, y = x[apart], _rising(x[apart], y[apart])
    return Isotonic(tuple(x.tolist()), tuple(y.tolist()), fit_platt(logit, label)[0])


def _joined(blocks: Floats, least: tuple[int, int]) -> Floats:
    """Join neighbors of blocks float64[3, n] (positives, negatives, sum) until each holds `least` of both kinds."""
    done: list[Floats] = []
    open_block = np.zeros(3)
    for block in blocks.T:
        open_block = open_block + block
        if open_block[0] >= least[0] and open_block[1] >= least[1]:
            done.append(open_block)
            open_block = np.zeros(3)
    if not done:
        return open_block[:, None]
    done[-1] = done[-1] + open_block
    return np.stack(done, axis=1)


def _rising(x: Floats, y: Floats) -> Floats:
    """Return y with no piece flatter than SCALE_MIN; shares of joined blocks rise already, if only by a rounding."""
    tilted = y - SCALE_MIN * x
    return np.maximum.accumulate(tilted) + SCALE_MIN * x


def _newton(design: Floats, target: Floats, weights: Floats, steps: int) -> Floats:
    """Return the weights that minimize the log loss of design @ weights, from a start that is halved back into."""
    loss = float(log_losses(design @ weights, target).sum())
    ridge = RIDGE * np.eye(len(weights))
    for _ in range(steps):
        probability = sigmoid(design @ weights)
        gradient = design.T @ (probability - target)
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        while (new := float(log_losses(design @ (weights - step), target).sum())) > loss and np.abs(step).max() > 1e-12:
            step = step / 2  # Newton overshoots where the curvature is nearly flat
        weights, loss = weights - step, new
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _drawn_in(label: Floats) -> Floats:
    positives, negatives = _counts(label)
    return np.where(label > 0.5, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _counts(label: Floats) -> tuple[float, float]:
    positives = float((label > 0.5).sum())
    negatives = len(label) - positives
    if positives < 1 or negatives < 1:
        raise ValueError("calibration needs examples of both classes")
    return positives, negatives


def _unchanged(_: Floats, __: Floats) -> Affine:
    return Affine()

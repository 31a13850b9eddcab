"""The calibration of a target, fitted on a later slice than its model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.binary import fit_binary
from graph_transformer.calibration.classes import fit_multiclass, fit_multilabel
from graph_transformer.calibration.conformal import fit_conformal
from graph_transformer.calibration.maps import Calibration, Map
from graph_transformer.target import Kind, Target


def fit_calibration(
    target: Target,
    raw: NDArray[np.float64],
    label: NDArray[np.floating],
    *,
    prior: float | tuple[float, ...] = 0.0,
) -> Calibration:
    """Return the calibration that holds best on a slice: raw float64[n, outputs], labels as the target's examples.

    `prior` is added to logits first. The order of a ranking's items is left as it is.

    Raises:
        ValueError: the slice is empty, or of a binary target holds one class alone.
    """
    if not len(label):
        raise ValueError("calibration needs examples")
    truth = label.astype(np.float64)
    found: tuple[str, Map]
    if target.is_number:
        method, found_map = fit_conformal(raw, truth, steps=target.steps)
        return Calibration(found_map, method=method)
    if target.kind is Kind.RANKING:
        return Calibration.of(target, prior=prior)
    logit = raw + np.asarray(prior)
    if target.kind is Kind.BINARY:
        found = fit_binary(logit[:, 0], truth)
    elif target.kind is Kind.MULTICLASS:
        found = fit_multiclass(logit, truth)
    else:
        found = fit_multilabel(logit, truth)
    return Calibration(found[1], prior, found[0])

"""Which of several maps holds on examples it was not fitted on: cross-validation within the calibration slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.maps import Map

FOLDS = 5

Floats = NDArray[np.float64]
Fit = Callable[[Floats, Floats], Map]
Loss = Callable[[Floats, Floats], Floats]
"""(outputs, labels) -> the loss of each example, float64[n]."""


class Applies(Protocol):
    """What is fitted: a map, or a part of one."""

    def apply(self, raw: Floats, /) -> Floats:
        """Return outputs as they are put."""


def folds_of(label: Floats) -> NDArray[np.int64]:
    """Return the fold of each example, int64[n]: every class is dealt out in turn, so that folds are alike."""
    order = np.argsort(label, kind="stable")
    ordered = label[order]
    start = np.searchsorted(ordered, ordered, side="left")
    fold = np.empty(len(label), dtype=np.int64)
    fold[order] = (np.arange(len(label)) - start) % FOLDS
    return fold


def held_out(
    fit: Callable[[Floats, Floats], Applies], loss: Loss, raw: Floats, label: Floats, fold: NDArray[np.int64]
) -> Floats:
    """Return the loss of each example float64[n] under a map fitted on the other folds."""
    losses = np.empty(len(label))
    for each in np.unique(fold):
        out = fold == each
        losses[out] = loss(fit(raw[~out], label[~out]).apply(raw[out]), label[out])
    return losses


def choose(fits: Mapping[str, Fit], flexible: Mapping[str, Fit], loss: Loss, raw: Floats, label: Floats) -> str:
    """Return the name of the fit with the least held-out loss.

    A flexible one has to win clearly: it follows its slice more closely than the next slice will.
    """
    fold = folds_of(label)
    losses = {name: held_out(fit, loss, raw, label, fold) for name, fit in fits.items()}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    for name, fit in flexible.items():
        gain = losses[best] - held_out(fit, loss, raw, label, fold)
        if is_clear(gain):
            best, losses[name] = name, losses[best] - gain
    return best


def is_clear(gain: Floats) -> bool:
    """Return whether the mean gain of examples is more than its standard error."""
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))

"""How far two models' answers to the same questions lie apart, in one number and one yes or no for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.predictor import Prediction
from graph_transformer.target import Kind, Target

# Numbers that differ by more than this share of the larger one would be acted on otherwise.
NUMBER_SHARE = 0.1
# Below this a number counts as zero: shares of nothing mean nothing.
_TINY = 1e-9


def compare(target: Target, live: Prediction, other: Prediction) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns difference float64[B] and disagreement bool[B].

    Of probabilities: the largest absolute difference; another side of one half, of a multiclass another class that is
    most likely. Of numbers: the difference as a share of the larger one, the largest of a forecast's steps; more than a
    tenth.
    """
    if target.is_number:
        assert live.value is not None
        assert other.value is not None
        a, b = _columns(live.value), _columns(other.value)
        share = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), _TINY)
        difference = share.max(axis=1, initial=0.0)
        return difference, difference > NUMBER_SHARE
    assert live.probability is not None
    assert other.probability is not None
    a, b = _columns(live.probability), _columns(other.probability)
    difference = np.abs(a - b).max(axis=1, initial=0.0)
    if target.kind is Kind.MULTICLASS:
        return difference, a.argmax(axis=1) != b.argmax(axis=1)
    return difference, ((a >= 0.5) != (b >= 0.5)).any(axis=1)


def _columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1)

"""The answer that knows nothing of the example: shares of the training labels, or their quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.target import QUANTILES, Kind, Target

CONSTANT = "constant"
DRAWN_IN = 0.5
"""Added to the count of each kind, so that a class that never occurred has finite logits."""

Floats = NDArray[np.float64]


def constant_output(target: Target, label: NDArray[np.floating]) -> Floats:
    """Return the outputs float64[outputs] that say of every example what labels say of all of them."""
    truth = label.astype(np.float64)
    if target.is_number:
        return np.quantile(truth.reshape(len(truth), -1), QUANTILES, axis=0).T.reshape(-1)
    if target.kind is Kind.MULTICLASS:
        return log_shares(np.bincount(truth.astype(np.int64), minlength=len(target.classes)).astype(np.float64))
    positives = np.atleast_1d((truth > 0.5).sum(axis=0)).astype(np.float64)
    return log_odds(positives, len(truth) - positives)


def log_odds(positives: Floats, negatives: Floats) -> Floats:
    """Return the logs of the odds of counts, finite where one of them is 0."""
    odds: Floats = np.log((positives + DRAWN_IN) / (negatives + DRAWN_IN))
    return odds


def log_shares(counts: Floats) -> Floats:
    """Return the logs of the shares of counts along the last axis, finite where some are 0."""
    drawn_in = counts + DRAWN_IN
    shares: Floats = np.log(drawn_in / drawn_in.sum(axis=-1, keepdims=True))
    return shares

"""The one number by which a model is chosen while it is fitted, from outputs that are not calibrated yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration import log_softmax
from graph_transformer.finetune.metrics.number import pinball_losses
from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target

Floats = NDArray[np.float64]
Label = NDArray[np.floating]
Compute = Callable[[Floats, Label, Floats | None], float]


@dataclass(frozen=True, slots=True)
class Primary:
    """A metric's name, whether more of it is better, and how it is computed.

    `compute` takes outputs float64[n, outputs] in the label's unit, labels as examples hold them, and weights
    float64[n] of the examples or None.
    """

    metric: str
    higher_is_better: bool
    compute: Compute


def primary(target: Target, metric: str | None = None) -> Primary:
    """Return the metric of that name, or the default of the target's kind.

    Raises:
        ValueError: the kind has no such metric.
    """
    known = PRIMARIES.get(target.kind)
    if known is None:
        raise ValueError(f"a {target.kind.value} target is not measured by example")
    if metric is None:
        return known[0]
    for found in known:
        if found.metric == metric:
            return found
    names = ", ".join(found.metric for found in known)
    raise ValueError(f"expected a metric of a {target.kind.value} target ({names}), found {metric!r}")


def _average_precision(output: Floats, label: Label, weight: Floats | None) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(label > 0.5, output[:, 0], sample_weight=weight))


def _roc_auc(output: Floats, label: Label, weight: Floats | None) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label > 0.5, output[:, 0], sample_weight=weight))


def _log_loss(output: Floats, label: Label, weight: Floats | None) -> float:
    logit = output.reshape(len(label), -1)
    losses = np.logaddexp(0.0, logit) - label.reshape(len(label), -1) * logit
    return float(np.average(losses.mean(axis=1), weights=weight))


def _softmax_loss(output: Floats, label: Label, weight: Floats | None) -> float:
    losses = -log_softmax(output)[np.arange(len(label)), label.astype(np.int64)]
    return float(np.average(losses, weights=weight))


def _accuracy(output: Floats, label: Label, weight: Floats | None) -> float:
    return float(np.average(output.argmax(axis=1) == label, weights=weight))


def _macro_average_precision(output: Floats, label: Label, weight: Floats | None) -> float:
    from sklearn.metrics import average_precision_score

    truth = label > 0.5
    used = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    found = [average_precision_score(truth[:, each], output[:, each], sample_weight=weight) for each in used]
    return float(np.mean(found)) if found else 0.0


def _mae(output: Floats, label: Label, weight: Floats | None) -> float:
    truth = label.reshape(len(label), -1)
    error = np.abs(truth - output.reshape(*truth.shape, len(QUANTILES))[..., MEDIAN])
    return float(np.average(error.mean(axis=1), weights=weight))


def _pinball(output: Floats, label: Label, weight: Floats | None) -> float:
    truth = label.reshape(len(label), -1).astype(np.float64)
    quantiles = output.reshape(*truth.shape, len(QUANTILES))
    return float(np.average(pinball_losses(quantiles, truth).mean(axis=1), weights=weight))


_NUMBERS = (Primary("mae", False, _mae), Primary("pinball", False, _pinball))
PRIMARIES: dict[Kind, tuple[Primary, ...]] = {
    Kind.BINARY: (
        Primary("average_precision", True, _average_precision),
        Primary("roc_auc", True, _roc_auc),
        Primary("log_loss", False, _log_loss),
    ),
    Kind.MULTICLASS: (Primary("log_loss", False, _softmax_loss), Primary("accuracy", True, _accuracy)),
    Kind.MULTILABEL: (
        Primary("macro_average_precision", True, _macro_average_precision),
        Primary("log_loss", False, _log_loss),
    ),
    Kind.REGRESSION: _NUMBERS,
    Kind.FORECAST: _NUMBERS,
}
"""The metrics a model of each kind can be chosen by; the first is the default."""

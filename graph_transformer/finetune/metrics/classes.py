"""One of several classes, or several of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration import expected_calibration_error, log_softmax, sigmoid
from graph_transformer.finetune.metrics.base import Metrics, shown

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MulticlassMetrics(Metrics):
    """Accuracy, AUC (mean over classes, each against the others), log loss, ECE of the class that is named."""

    classes: int
    accuracy: float
    macro_auc: float
    log_loss: float
    calibration_error: float

    def figures(self) -> dict[str, str]:
        """Return what a person is shown, by short name, in order."""
        return {
            "examples": f"{self.count:,}",
            "classes": f"{self.classes:,}",
            "accuracy": shown(self.accuracy),
            "AUC": shown(self.macro_auc),
            "log loss": shown(self.log_loss),
            "ECE": shown(self.calibration_error, 5),
        }


@dataclass(frozen=True, slots=True)
class MultilabelMetrics(Metrics):
    """Average precision as the mean over classes (macro) and over all pairs of example and class (micro).

    Classes that have both kinds count for the means; log loss and ECE are over all pairs.
    """

    classes: int
    macro_average_precision: float
    micro_average_precision: float
    macro_auc: float
    log_loss: float
    calibration_error: float

    def figures(self) -> dict[str, str]:
        """Return what a person is shown, by short name, in order."""
        return {
            "examples": f"{self.count:,}",
            "classes": f"{self.classes:,}",
            "macro AP": shown(self.macro_average_precision),
            "micro AP": shown(self.micro_average_precision),
            "AUC": shown(self.macro_auc),
            "log loss": shown(self.log_loss),
            "ECE": shown(self.calibration_error, 5),
        }


def measure_multiclass(logit: Floats, label: NDArray[np.int64]) -> MulticlassMetrics:
    """Return the metrics of calibrated logits float64[n, classes] for class indices int64[n]."""
    logs = log_softmax(logit)
    right = logit.argmax(axis=1) == label
    one_of = label[:, None] == np.arange(logit.shape[1])
    return MulticlassMetrics(
        count=len(label),
        classes=logit.shape[1],
        accuracy=float(right.mean()),
        macro_auc=_macro("auc", np.exp(logs), one_of),
        log_loss=float(-logs[np.arange(len(label)), label].mean()),
        calibration_error=expected_calibration_error(np.exp(logs.max(axis=1)), right.astype(np.float64)),
    )


def measure_multilabel(logit: Floats, label: NDArray[np.bool_]) -> MultilabelMetrics:
    """Return the metrics of calibrated logits float64[n, classes] for labels bool of the same shape."""
    flat, truth = logit.reshape(-1), label.reshape(-1)
    return MultilabelMetrics(
        count=len(label),
        classes=logit.shape[1],
        macro_average_precision=_macro("average_precision", logit, label),
        micro_average_precision=_macro("average_precision", flat[:, None], truth[:, None]),
        macro_auc=_macro("auc", logit, label),
        log_loss=float(np.mean(np.logaddexp(0.0, flat) - truth * flat)),
        calibration_error=expected_calibration_error(sigmoid(flat), truth.astype(np.float64)),
    )


def _macro(name: str, score: Floats, label: NDArray[np.bool_]) -> float:
    """Return the mean over the columns in which labels bool[n, classes] differ; NaN if in none."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    compute = roc_auc_score if name == "auc" else average_precision_score
    used = np.flatnonzero(label.any(axis=0) & ~label.all(axis=0))
    return float(np.mean([compute(label[:, each], score[:, each]) for each in used])) if len(used) else math.nan

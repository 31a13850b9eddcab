"""Yes or no: ranking, calibration, and what a team that can check so many cards a day would find."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration import calibration_noise, expected_calibration_error, sigmoid
from graph_transformer.finetune.metrics.base import Metrics, shown

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class BinaryMetrics(Metrics):
    """Of examples with `positives`: average precision, area under the ROC curve, Brier score, ECE, log loss.

    `card_precision`, where the task names an entity: the mean share of true entities among the first `precision_at` of
    a day. `calibration_noise` is the ECE that true probabilities would show on as many examples.
    """

    positives: int
    average_precision: float
    roc_auc: float
    brier: float
    calibration_error: float
    log_loss: float
    card_precision: float | None = None
    precision_at: int = 100
    calibration_noise: float = math.nan

    def figures(self) -> dict[str, str]:
        """Return what a person is shown, by short name, in order."""
        return {
            "examples": f"{self.count:,}",
            "positives": f"{self.positives:,}",
            "AP": shown(self.average_precision),
            "AUC": shown(self.roc_auc),
            f"CP@{self.precision_at}": shown(self.card_precision),
            "Brier": shown(self.brier, 5),
            "ECE": shown(self.calibration_error, 5),
            "ECE by chance": shown(self.calibration_noise, 5),
            "log loss": shown(self.log_loss, 5),
        }


def measure_binary(logit: NDArray[np.float64], label: NDArray[np.bool_]) -> BinaryMetrics:
    """Return the metrics of calibrated logits float64[n]; those of the ranking are NaN where labels are all alike."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    probability, truth = sigmoid(logit), label.astype(np.float64)
    both = bool(label.any()) and not bool(label.all())
    return BinaryMetrics(
        count=len(label),
        positives=int(label.sum()),
        average_precision=float(average_precision_score(label, logit)) if both else math.nan,
        roc_auc=float(roc_auc_score(label, logit)) if both else math.nan,
        brier=float(np.mean((probability - truth) ** 2)),
        calibration_error=expected_calibration_error(probability, truth),
        log_loss=float(np.mean(np.logaddexp(0.0, logit) - truth * logit)),
        calibration_noise=calibration_noise(probability),
    )


def card_precision(
    logit: NDArray[np.float64],
    label: NDArray[np.bool_],
    event_time_us: NDArray[np.int64],
    entity: NDArray[np.int64],
    *,
    at: int,
) -> float:
    """Return the mean over days of the share of true entities among the `at` highest; a found one leaves later days.

    After "Reproducible Machine Learning for Credit Card Fraud Detection" (Le Borgne and others), card precision top-k.
    """
    found: set[int] = set()
    shares = []
    days = event_time_us // DAY_US
    for day in np.unique(days):
        today = np.flatnonzero(days == day)
        today = today[~np.isin(entity[today], list(found))]
        cards, inverse = np.unique(entity[today], return_inverse=True)
        score = np.full(len(cards), -np.inf)
        guilty = np.zeros(len(cards), dtype=bool)
        np.maximum.at(score, inverse, logit[today])
        np.logical_or.at(guilty, inverse, label[today])
        first = np.argsort(-score, kind="stable")[:at]
        hits = cards[first][guilty[first]]
        shares.append(len(hits) / at)
        found.update(hits.tolist())
    return float(np.mean(shares))

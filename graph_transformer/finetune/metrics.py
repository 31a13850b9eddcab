"""How good the answers are: ranking, calibration, and what a team that can check so many cards a day would find."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from graph_transformer.calibration import expected_calibration_error, sigmoid

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of `count` examples with `positives`: average precision, area under the ROC curve, Brier score, ECE.

    `card_precision`, where the task names an entity: the mean share of true entities among the first so many a day.
    """

    count: int
    positives: int
    average_precision: float
    roc_auc: float
    brier: float
    calibration_error: float
    card_precision: float | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain JSON values."""
        return asdict(self)


def measure(
    logit: NDArray[np.float64],
    label: NDArray[np.bool_],
    *,
    event_time_us: NDArray[np.int64] | None = None,
    entity: NDArray[np.int64] | None = None,
    precision_at: int = 100,
) -> Metrics:
    """Return the metrics of calibrated logits float64[n] for labels bool[n] of both kinds.

    With `event_time_us` and `entity` int64[n], card precision too.
    """
    probability = sigmoid(logit)
    truth = label.astype(np.float64)
    cards = None
    if event_time_us is not None and entity is not None:
        cards = card_precision(logit, label, event_time_us, entity, at=precision_at)
    return Metrics(
        count=len(label),
        positives=int(label.sum()),
        average_precision=float(average_precision_score(label, logit)),
        roc_auc=float(roc_auc_score(label, logit)),
        brier=float(np.mean((probability - truth) ** 2)),
        calibration_error=expected_calibration_error(probability, truth),
        card_precision=cards,
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

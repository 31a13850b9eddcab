"""How good the scores were: average precision, ROC AUC and the Handbook's card precision.

The protocol is the Fraud Detection Handbook's (chapter 5): a test day leaves out the customers already known to be
compromised, for their cards would be blocked; card precision at k is the share of frauds among the k most suspicious
customers of a day, a detected one being left out of the following days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from graph_transformer.finetune.metrics import DAY_US, card_precision
from nowgraph.payments_data import PaymentColumns


@dataclass(frozen=True, slots=True)
class Measures:
    """``average_precision``, ``roc_auc`` and ``card_precision`` (mean over days) over ``payments`` with ``frauds``."""

    average_precision: float
    roc_auc: float
    card_precision: float
    payments: int
    frauds: int


def average_precision(fraud: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float:
    """Average precision of the scores float64[N]; NaN as long as there is no fraud or nothing else."""
    if not fraud.any() or fraud.all():
        return float("nan")
    return float(average_precision_score(fraud, score))


def measure(payments: PaymentColumns, score: npt.NDArray[np.float64], *, cards_a_day: int) -> Measures:
    """Measures the scores float64[N] of the payments."""
    fraud = payments.tx_fraud
    both = bool(fraud.any()) and not bool(fraud.all())
    return Measures(
        average_precision=average_precision(fraud, score),
        roc_auc=float(roc_auc_score(fraud, score)) if both else float("nan"),
        card_precision=card_precision(score, fraud, payments.event_time_us, payments.customer_id, at=cards_a_day),
        payments=len(payments),
        frauds=int(fraud.sum()),
    )


def not_yet_compromised(history: PaymentColumns, live: PaymentColumns, *, known_from_us: int) -> npt.NDArray[np.bool_]:
    """bool[live]: payments of customers who had no fraud on record when the payment's day began.

    On record is a fraud of ``history`` or ``live`` that happened at or after ``known_from_us`` and was known by then.
    """
    keep = np.ones(len(live), dtype=np.bool_)
    customer, event, known = (
        np.concatenate([getattr(part, name)[part.tx_fraud] for part in (history, live)])
        for name in ("customer_id", "event_time_us", "known_at_us")
    )
    day = live.event_time_us // DAY_US
    for today in np.unique(day):
        # The Handbook moves in whole days: a fraud is on record from the day after the one on which it became known.
        on_record = customer[(event >= known_from_us) & (known // DAY_US < today)]
        here = day == today
        keep[here] = ~np.isin(live.customer_id[here], on_record)
    return keep

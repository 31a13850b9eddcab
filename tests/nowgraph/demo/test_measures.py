"""The demo's measures are the Handbook's, checked on days small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nowgraph.demo.measures import DAY_US, average_precision, measure, not_yet_compromised
from nowgraph.payments_data import PaymentColumns


def _payments(rows: list[tuple[int, float, bool]], *, delay_days: int = 7) -> PaymentColumns:
    """Payments from (customer, day, fraud)."""
    event = np.asarray([int(day * DAY_US) for _, day, _ in rows], dtype=np.int64)
    return PaymentColumns(
        transaction_id=np.arange(len(rows), dtype=np.int64),
        event_time_us=event,
        customer_id=np.asarray([customer for customer, _, _ in rows], dtype=np.int64),
        terminal_id=np.zeros(len(rows), dtype=np.int64),
        tx_amount=np.ones(len(rows)),
        tx_fraud=np.asarray([fraud for _, _, fraud in rows], dtype=np.bool_),
        known_at_us=event + delay_days * DAY_US,
    )


def test_average_precision_is_the_mean_of_the_precisions_at_the_frauds() -> None:
    """Frauds first and third of four: (1/1 + 2/3) / 2; with one class alone there is no such number."""
    fraud = np.asarray([True, False, True, False])
    assert average_precision(fraud, np.asarray([4.0, 3.0, 2.0, 1.0])) == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(average_precision(np.zeros(3, dtype=np.bool_), np.ones(3)))
    assert math.isnan(average_precision(np.ones(3, dtype=np.bool_), np.ones(3)))


def test_a_card_counts_once_a_day_and_not_again_once_it_is_caught() -> None:
    """Day 0 catches customer 1 of the two reported; on day 1 customer 1 is gone, so customer 2 fills its place."""
    payments = _payments([(1, 0, True), (1, 0.1, True), (2, 0, False), (3, 0, False), (1, 1, True), (2, 1, True)])
    score = np.asarray([0.9, 0.8, 0.5, 0.1, 0.9, 0.7])
    assert measure(payments, score, cards_a_day=2).card_precision == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert measure(payments, score, cards_a_day=1).card_precision == pytest.approx(1.0)


def test_a_customer_leaves_the_test_days_when_a_fraud_is_on_record() -> None:
    """Known on day 9, so gone from day 10 on and still there on day 9; a genuine record changes nothing."""
    history = _payments([(1, 2.5, True), (2, 2.5, False)])
    live = _payments([(1, 9.9, False), (1, 10.0, False), (2, 10.0, False), (3, 10.0, True), (3, 17.9, False)])
    keep = not_yet_compromised(history, live, known_from_us=0)
    assert keep.tolist() == [True, False, True, True, True]
    later = not_yet_compromised(history, live, known_from_us=3 * DAY_US)
    assert later.tolist() == [True, True, True, True, True]

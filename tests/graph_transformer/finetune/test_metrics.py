from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.finetune.metrics import DAY_US, card_precision, measure


def days(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Times, in days."""
    return np.array(values, dtype=np.int64) * DAY_US


def test_a_perfect_ranking_measures_as_one() -> None:
    """Average precision and AUC are 1 when all positives come first."""
    found = measure(np.array([3.0, 2.0, -1.0, -2.0]), np.array([True, True, False, False]))
    assert (found.average_precision, found.roc_auc, found.count, found.positives) == (1.0, 1.0, 4, 2)
    assert found.card_precision is None
    assert found.brier == pytest.approx(np.mean((1 / (1 + np.exp([3.0, 2.0, 1.0, 2.0]))) ** 2))


def test_card_precision_counts_cards_not_payments() -> None:
    """A card with many payments takes one of the places of the day."""
    logit = np.array([5.0, 4.0, 3.0, 2.0])
    label = np.array([True, True, False, True])
    entity = np.array([1, 1, 2, 3])
    assert card_precision(logit, label, days(0, 0, 0, 0), entity, at=2) == 0.5
    assert card_precision(logit, label, days(0, 0, 0, 0), entity, at=3) == pytest.approx(2 / 3)


def test_a_found_card_leaves_the_later_days() -> None:
    """What was found on the first day is neither found again nor in the way on the second."""
    logit = np.array([5.0, 5.0, 1.0])
    label = np.array([True, True, True])
    entity = np.array([1, 1, 2])
    assert card_precision(logit, label, days(0, 1, 1), entity, at=1) == 1.0
    missed = card_precision(np.array([-5.0, 9.0, 5.0, 1.0]), np.array([True, False, True, True]),
                            days(0, 0, 1, 1), np.array([1, 3, 1, 2]), at=1)  # fmt: skip
    assert missed == 0.5


def test_metrics_are_plain_values() -> None:
    """What goes into the checkpoint is numbers and None."""
    values = measure(np.array([1.0, -1.0]), np.array([True, False])).to_dict()
    assert all(value is None or isinstance(value, int | float) for value in values.values())
    assert values["average_precision"] == 1.0

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from graph_transformer.finetune.metrics.binary import DAY_US, card_precision, measure_binary


def days(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Times, in days."""
    return np.array(values, dtype=np.int64) * DAY_US


def test_a_perfect_ranking_measures_as_one() -> None:
    """Average precision and AUC are 1 when all positives come first."""
    found = measure_binary(np.array([3.0, 2.0, -1.0, -2.0]), np.array([True, True, False, False]))
    assert (found.average_precision, found.roc_auc, found.count, found.positives) == (1.0, 1.0, 4, 2)
    assert found.card_precision is None


def test_brier_and_log_loss_are_scikit_learns() -> None:
    """Both agree with scikit-learn on drawn logits."""
    random = np.random.default_rng(0)
    logit = random.normal(0, 2, 500)
    label = random.random(500) < 0.3
    found = measure_binary(logit, label)
    probability = 1.0 / (1.0 + np.exp(-logit))
    assert found.brier == pytest.approx(brier_score_loss(label, probability))
    assert found.log_loss == pytest.approx(log_loss(label, probability))


def test_one_kind_alone_has_no_ranking() -> None:
    """Without a positive the ranking's numbers are undefined; the others are numbers."""
    found = measure_binary(np.array([-3.0, -2.0]), np.array([False, False]))
    assert math.isnan(found.average_precision)
    assert math.isnan(found.roc_auc)
    assert found.log_loss > 0
    assert found.figures()["AP"] == "-"


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

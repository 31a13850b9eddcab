from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

from graph_transformer.calibration import log_softmax, sigmoid
from graph_transformer.finetune.metrics.classes import measure_multiclass, measure_multilabel


def test_multiclass_is_scikit_learns() -> None:
    """Accuracy, macro AUC and log loss agree with scikit-learn; true probabilities have a small ECE, sharp ones not."""
    random = np.random.default_rng(0)
    logit = random.normal(0, 1.5, (20_000, 3))
    share = np.exp(log_softmax(logit))
    label = (share.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    found = measure_multiclass(logit, label)
    assert found.accuracy == pytest.approx(accuracy_score(label, logit.argmax(axis=1)))
    assert found.macro_auc == pytest.approx(roc_auc_score(label, share, multi_class="ovr"))
    assert found.log_loss == pytest.approx(log_loss(label, share))
    assert found.calibration_error < 0.015
    assert measure_multiclass(4.0 * logit, label).calibration_error > 0.1


def test_a_class_that_is_missing_does_not_spoil_the_mean() -> None:
    """AUC is over the classes that occur and do not fill everything; with one class alone there is none."""
    logit = np.array([[2.0, 0.0, 9.0], [0.0, 2.0, 9.0], [3.0, 1.0, 9.0]])
    assert measure_multiclass(logit, np.array([0, 1, 0])).macro_auc > 0.5
    assert math.isnan(measure_multiclass(logit, np.array([1, 1, 1])).macro_auc)


def test_multilabel_is_scikit_learns() -> None:
    """Macro and micro average precision and macro AUC agree with scikit-learn."""
    random = np.random.default_rng(0)
    logit = random.normal(-1, 1.5, (2000, 4))
    label = random.random(logit.shape) < sigmoid(logit)
    found = measure_multilabel(logit, label)
    assert found.macro_average_precision == pytest.approx(average_precision_score(label, logit, average="macro"))
    assert found.micro_average_precision == pytest.approx(average_precision_score(label, logit, average="micro"))
    assert found.macro_auc == pytest.approx(roc_auc_score(label, logit, average="macro"))
    assert found.log_loss == pytest.approx(log_loss(label.reshape(-1), sigmoid(logit).reshape(-1)))
    label[:, 3] = False
    three = measure_multilabel(logit, label)
    assert three.macro_average_precision == pytest.approx(average_precision_score(label[:, :3], logit[:, :3]))

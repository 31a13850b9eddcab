from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graph_transformer.predictor import Prediction
from graph_transformer.target import Kind, Target
from model_server.models.comparison import compare

BINARY = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")


def of_classes(*probability: list[float] | float) -> Prediction:
    """A prediction of probabilities."""
    return Prediction(np.zeros((len(probability), 1)), np.array(probability), None)


def of_numbers(*value: list[float] | float) -> Prediction:
    """A prediction of numbers."""
    return Prediction(np.zeros((len(value), 1)), None, np.array(value))


def test_probabilities_differ_by_their_distance() -> None:
    """A decision changes at one half, however small the step over it."""
    difference, disagrees = compare(BINARY, of_classes(0.2, 0.49, 0.9), of_classes(0.25, 0.51, 0.6))
    assert difference.tolist() == pytest.approx([0.05, 0.02, 0.3])
    assert disagrees.tolist() == [False, True, False]


def test_classes_differ_by_the_one_most_likely() -> None:
    """Of several classes the first counts; of any of several, each."""
    live, other = of_classes([0.5, 0.3, 0.2], [0.4, 0.35, 0.25]), of_classes([0.45, 0.3, 0.25], [0.35, 0.4, 0.25])
    difference, disagrees = compare(replace(BINARY, kind=Kind.MULTICLASS), live, other)
    assert difference.tolist() == pytest.approx([0.05, 0.05])
    assert disagrees.tolist() == [False, True]
    _, disagrees = compare(replace(BINARY, kind=Kind.MULTILABEL), of_classes([0.6, 0.1]), of_classes([0.6, 0.55]))
    assert disagrees.tolist() == [True]


def test_numbers_differ_by_their_share() -> None:
    """As a share of the larger one, of a forecast the worst step; nothing and nothing agree."""
    regression = replace(BINARY, kind=Kind.REGRESSION)
    difference, disagrees = compare(regression, of_numbers(100.0, 100.0, 0.0), of_numbers(95.0, 50.0, 0.0))
    assert difference.tolist() == pytest.approx([0.05, 0.5, 0.0])
    assert disagrees.tolist() == [False, True, False]
    forecast = replace(BINARY, kind=Kind.FORECAST)
    difference, _ = compare(forecast, of_numbers([10.0, 20.0]), of_numbers([10.0, 10.0]))
    assert difference.tolist() == pytest.approx([0.5])

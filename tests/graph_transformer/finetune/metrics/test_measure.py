from __future__ import annotations

import json

import numpy as np
import pytest

from graph_transformer.finetune.metrics import (
    DAY_US,
    BinaryMetrics,
    MulticlassMetrics,
    MultilabelMetrics,
    NumberMetrics,
    measure,
)
from graph_transformer.target import Kind, Target


def target(kind: Kind, *, classes: int = 0, steps: int = 1) -> Target:
    """A target of a kind."""
    return Target(kind, "items", event_level=False, classes=tuple("abcdef"[:classes]), steps=steps)


@pytest.mark.parametrize(
    ("asked", "label", "expected"),
    [
        (target(Kind.BINARY), np.arange(40) % 2, BinaryMetrics),
        (target(Kind.MULTICLASS, classes=3), np.arange(40) % 3, MulticlassMetrics),
        (target(Kind.MULTILABEL, classes=3), np.arange(120).reshape(40, 3) % 2, MultilabelMetrics),
        (target(Kind.REGRESSION), np.arange(40), NumberMetrics),
        (target(Kind.FORECAST, steps=2), np.arange(80).reshape(40, 2), NumberMetrics),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Target) else "",
)
def test_every_kind_has_its_metrics(asked: Target, label: np.ndarray, expected: type) -> None:  # type: ignore[type-arg]
    """Labels as examples hold them give the kind's metrics, which are plain values and have figures to show."""
    output = np.sort(np.random.default_rng(0).normal(size=(40, asked.outputs)), axis=1)
    found = measure(asked, output, label.astype(np.float32))
    assert isinstance(found, expected)
    assert found.count == 40
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["count"] == 40
    assert found.figures()["examples"] == "40"


def test_cards_are_counted_where_they_are_known() -> None:
    """With times and entities there is card precision at the number asked for; without one of them there is none."""
    output, label = np.array([[3.0], [1.0], [2.0]]), np.array([1.0, 0.0, 0.0])
    time_us, entity = np.arange(3) * DAY_US, np.arange(3)
    found = measure(target(Kind.BINARY), output, label, time_us=time_us, entity=entity, precision_at=1)
    assert isinstance(found, BinaryMetrics)
    assert found.card_precision == pytest.approx(1 / 3)
    assert found.figures()["CP@1"] == "0.333"
    without = measure(target(Kind.BINARY), output, label, time_us=time_us)
    assert isinstance(without, BinaryMetrics)
    assert without.card_precision is None


def test_what_can_not_be_measured_is_refused() -> None:
    """No examples, or items that are ranked together, are errors."""
    with pytest.raises(ValueError, match="no examples"):
        measure(target(Kind.BINARY), np.empty((0, 1)), np.empty(0))
    with pytest.raises(ValueError, match="ranking"):
        measure(target(Kind.RANKING), np.zeros((2, 1)), np.zeros(2))

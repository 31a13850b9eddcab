from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.finetune.metrics import PRIMARIES, measure, primary
from graph_transformer.target import Kind, Target

COUNT = 60


def target(kind: Kind) -> Target:
    """A target of a kind, with classes and steps where it has them."""
    classes = ("a", "b", "c") if kind in (Kind.MULTICLASS, Kind.MULTILABEL) else ()
    return Target(kind, "items", event_level=False, classes=classes, steps=2 if kind is Kind.FORECAST else 1)


def labels(kind: Kind) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Labels of a kind."""
    if kind is Kind.MULTILABEL:
        return (np.arange(COUNT * 3).reshape(COUNT, 3) % 2).astype(np.float32)
    if kind is Kind.FORECAST:
        return np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2)
    return (np.arange(COUNT) % {Kind.BINARY: 2, Kind.MULTICLASS: 3}.get(kind, COUNT)).astype(np.float32)


NAMED = [(kind, found.metric) for kind, known in PRIMARIES.items() for found in known]


@pytest.mark.parametrize(("kind", "metric"), NAMED)
def test_the_choice_is_by_what_is_reported(kind: Kind, metric: str) -> None:
    """Each metric of choice is the one of that name in the evaluation, and weights of one change nothing."""
    asked, label = target(kind), labels(kind)
    output = np.random.default_rng(0).normal(0, 3, (COUNT, asked.outputs))
    found = primary(asked, metric)
    reported = measure(asked, output, label).to_dict()[metric]
    assert found.compute(output, label, None) == pytest.approx(reported, rel=1e-6)
    assert found.compute(output, label, np.ones(COUNT)) == pytest.approx(reported, rel=1e-6)


@pytest.mark.parametrize(("kind", "metric"), NAMED)
def test_a_weight_stands_for_as_many_examples(kind: Kind, metric: str) -> None:
    """An example of weight 3 counts as three of it."""
    asked, label = target(kind), labels(kind)
    output = np.random.default_rng(0).normal(0, 3, (COUNT, asked.outputs))
    times = np.arange(COUNT) % 3 + 1
    found = primary(asked, metric)
    repeated = found.compute(np.repeat(output, times, axis=0), np.repeat(label, times, axis=0), None)
    assert found.compute(output, label, times.astype(np.float64)) == pytest.approx(repeated, rel=1e-6)


@pytest.mark.parametrize(("kind", "metric"), NAMED)
def test_the_direction_is_the_metrics_own(kind: Kind, metric: str) -> None:
    """Outputs made from the labels are better than drawn ones in the direction that the metric says."""
    asked, label = target(kind), labels(kind)
    drawn = np.random.default_rng(0).normal(0, 3, (COUNT, asked.outputs))
    if kind is Kind.MULTICLASS:
        good = 5.0 * (label[:, None] == np.arange(3))
    elif asked.is_number:
        good = np.repeat(label.reshape(COUNT, -1), 7, axis=1).astype(np.float64)
    else:
        good = 10.0 * (label.reshape(COUNT, -1) - 0.5)
    found = primary(asked, metric)
    gain = found.compute(good, label, None) - found.compute(drawn, label, None)
    assert gain > 0 if found.higher_is_better else gain < 0


def test_defaults_and_unknown_names() -> None:
    """Yes or no is chosen by average precision, a number by its error; a name the kind does not have is refused."""
    assert primary(target(Kind.BINARY)).metric == "average_precision"
    assert primary(target(Kind.REGRESSION)).metric == "mae"
    with pytest.raises(ValueError, match="roc_auc"):
        primary(target(Kind.BINARY), "auc")
    with pytest.raises(ValueError, match="ranking"):
        primary(target(Kind.RANKING))

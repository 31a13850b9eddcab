from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.calibration import probability_of
from graph_transformer.finetune.floors.constant import constant_output
from graph_transformer.target import QUANTILES, Kind, Target


def target(kind: Kind, *, classes: int = 0, steps: int = 1) -> Target:
    """A target of a kind."""
    return Target(kind, "items", event_level=False, classes=tuple("abcdef"[:classes]), steps=steps)


def test_classes_get_their_shares() -> None:
    """The probability of each class is its share of the training labels, and a class that never occurred has some."""
    binary, one, several = target(Kind.BINARY), target(Kind.MULTICLASS, classes=3), target(Kind.MULTILABEL, classes=2)
    label = (np.arange(1000) < 100).astype(np.float32)
    assert probability_of(binary, constant_output(binary, label)[None])[0] == pytest.approx(0.1, abs=1e-3)
    found = probability_of(one, constant_output(one, (np.arange(1000) < 300).astype(np.float32))[None])[0]
    assert found == pytest.approx([0.7, 0.3, 0.0], abs=1e-3)
    assert found[2] > 0
    both = np.stack([label, np.zeros(1000, np.float32)], axis=1)
    assert probability_of(several, constant_output(several, both)[None])[0] == pytest.approx([0.1, 0.0], abs=1e-3)


def test_numbers_get_their_quantiles() -> None:
    """The quantiles are those of the training labels, of each step by itself."""
    label = np.arange(101, dtype=np.float32)
    assert constant_output(target(Kind.REGRESSION), label) == pytest.approx([100 * level for level in QUANTILES])
    steps = constant_output(target(Kind.FORECAST, steps=2), np.stack([label, 2 * label], axis=1))
    assert steps[7:] == pytest.approx(2 * steps[:7])

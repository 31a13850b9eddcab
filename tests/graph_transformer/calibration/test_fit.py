from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.calibration import Affine, Calibration, Conformal, fit_calibration, sigmoid
from graph_transformer.target import Kind, Target

COUNT = 2000


def target(kind: Kind, *, classes: int = 0, steps: int = 1) -> Target:
    """A target of a kind."""
    return Target(kind, "items", event_level=False, classes=tuple("abcdef"[:classes]), steps=steps)


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        (target(Kind.BINARY), np.arange(COUNT) % 2),
        (target(Kind.MULTICLASS, classes=3), np.arange(COUNT) % 3),
        (target(Kind.MULTILABEL, classes=3), np.arange(COUNT * 3).reshape(COUNT, 3) % 2),
        (target(Kind.REGRESSION), np.arange(COUNT)),
        (target(Kind.FORECAST, steps=2), np.arange(COUNT * 2).reshape(COUNT, 2)),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Target) else "",
)
def test_every_kind_is_calibrated_in_its_own_form(asked: Target, label: np.ndarray) -> None:  # type: ignore[type-arg]
    """Labels as examples hold them (float32) and raw outputs give a calibration that keeps the outputs' shape."""
    raw = np.random.default_rng(0).normal(size=(COUNT, asked.outputs))
    found = fit_calibration(asked, raw, label.astype(np.float32))
    assert found.apply(raw).shape == raw.shape
    assert isinstance(found.map, Conformal) == asked.is_number
    assert Calibration.from_dict(found.to_dict()) == found
    assert found.apply(raw[:0]).shape == (0, asked.outputs)


def test_the_map_is_fitted_after_the_prior() -> None:
    """Logits that need nothing but the prior keep a scale near 1 and an offset near 0, and the prior is kept."""
    random = np.random.default_rng(0)
    logit = random.normal(-3, 1.5, (20_000, 1))
    label = (random.random(20_000) < sigmoid(logit[:, 0])).astype(np.float32)
    found = fit_calibration(target(Kind.BINARY), logit + 2.0, label, prior=-2.0)
    assert found.prior == -2.0
    assert isinstance(found.map, Affine)
    assert found.map.scale[0] == pytest.approx(1.0, abs=0.1)
    assert found.map.offset[0] == pytest.approx(0.0, abs=0.2)


def test_an_order_of_items_is_left_as_it_is() -> None:
    """A ranking's outputs are not moved, whatever the labels."""
    raw = np.random.default_rng(0).normal(size=(50, 1))
    assert fit_calibration(target(Kind.RANKING), raw, np.ones(50)).apply(raw).tolist() == raw.tolist()


def test_nothing_calibrates_nothing() -> None:
    """An empty slice is an error, not an identity."""
    with pytest.raises(ValueError, match="needs examples"):
        fit_calibration(target(Kind.REGRESSION), np.empty((0, 7)), np.empty(0))

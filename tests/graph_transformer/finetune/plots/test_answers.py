from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_transformer.finetune.plots.answers import Answers, draw_answers
from graph_transformer.target import Kind, Target

COUNT = 60
EXPECTED = {
    Kind.BINARY: {"precision_recall.png", "roc.png", "reliability.png"},
    Kind.MULTICLASS: {"reliability.png"},
    Kind.MULTILABEL: {"precision_recall.png", "roc.png", "reliability.png"},
    Kind.REGRESSION: {"predicted_true.png", "coverage.png", "residuals.png"},
    Kind.FORECAST: {"predicted_true.png", "coverage.png", "residuals.png"},
    Kind.RANKING: set(),
}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_its_pictures(tmp_path: Path, kind: Kind) -> None:
    """The files named, for a model and a floor beside it, from labels as examples hold them."""
    classes = ("a", "b", "c") if kind in (Kind.MULTICLASS, Kind.MULTILABEL) else ()
    target = Target(kind, "items", event_level=False, classes=classes, steps=2 if kind is Kind.FORECAST else 1)
    random = np.random.default_rng(0)
    width = {Kind.MULTILABEL: 3, Kind.FORECAST: 2}.get(kind)
    label = random.integers(0, 2, (COUNT, width) if width else COUNT).astype(np.float32)
    answers = {name: Answers(random.normal(size=(COUNT, target.outputs)), label) for name in ("test", "constant")}
    written = draw_answers(tmp_path, target, answers, shown="test", floors=("constant",))
    assert {path.name for path in written} == EXPECTED[kind] == {path.name for path in tmp_path.iterdir()}


def test_what_is_shown_has_to_be_there(tmp_path: Path) -> None:
    """A name that no answers have is an error."""
    with pytest.raises(KeyError):
        draw_answers(tmp_path, Target(Kind.BINARY, "items", event_level=False), {}, shown="test")

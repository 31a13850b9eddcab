from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_transformer.finetune.examples import Examples, OutcomeLabels, TableLabels
from graph_transformer.pretrain.curve import BEGUN, NEW, Curve, Point, Thinned, few_labels
from graph_transformer.pretrain.pretrain import pretrain
from graph_transformer.task import Splits, Task


def test_thinned_labels_are_a_share_of_those_before_a_time() -> None:
    """About a tenth of the earlier ones stays and all later ones; a smaller share is part of a larger one."""
    time_us = np.arange(20_000)
    label = np.zeros(20_000, dtype=np.float32)
    labels = TableLabels(Examples(time_us % 77, time_us, time_us, time_us, label))

    def kept(share: float, seed: int = 0, known_by_us: int | None = None) -> set[int]:
        return set(Thinned(labels, share, seed, 10_000).known(known_by_us).time_us.tolist())

    tenth = kept(0.1)
    assert set(range(10_000, 20_000)) <= tenth
    assert len(tenth) == pytest.approx(11_000, abs=100)
    assert kept(0.01) < tenth < kept(1.0)
    assert tenth != kept(0.1, seed=1)
    assert kept(0.1, known_by_us=5_000) == {at for at in tenth if at <= 5_000}


def test_lines_are_means_with_their_spread(tmp_path: Path) -> None:
    """Two seeds of a share make a point; a picture per split that was measured, and the figures beside them."""
    points = tuple(
        Point(share, 10, begun, seed, 5, validation=share + seed, test=None)
        for share in (0.1, 1.0)
        for begun in (NEW, BEGUN)
        for seed in (0, 1)
    )
    curve = Curve("mae", points)
    (first, second) = curve.lines("validation")[NEW]
    assert (first.share, first.mean) == (0.1, pytest.approx(0.6))
    assert first.spread == pytest.approx(np.std([0.1, 1.1], ddof=1))
    assert second.share == 1.0
    assert curve.lines("test") == {}
    assert [path.name for path in curve.save(tmp_path)] == ["few_labels_validation.png"]
    assert len(json.loads((tmp_path / "few_labels.json").read_text())["points"]) == 8


def test_a_curve_trains_with_and_without(shop: Any, task: Task, labels: OutcomeLabels, tmp_path: Path) -> None:
    """Every share is trained from nothing and from the weights, on as many labels; all are measured on the test."""
    quick = replace(task, training=replace(task.training, steps=4, evaluate_every=4))
    begun = pretrain(shop.view, shop.view.schema, quick, tmp_path / "pre").pretrained
    seen: list[Point] = []
    curve = few_labels(shop.view, quick, begun, labels=labels, shares=(0.2, 1.0), seeds=(0,), each=seen.append)
    assert list(curve.points) == seen
    assert [(p.share, p.begun) for p in seen] == [(0.2, NEW), (0.2, BEGUN), (1.0, NEW), (1.0, BEGUN)]
    assert seen[0].labels == seen[1].labels < seen[2].labels
    assert all(0.0 <= p.validation <= 1.0 + 1e-6 and p.test is not None for p in seen)
    assert curve.metric == "average_precision"
    with pytest.raises(ValueError, match="no validation"):
        few_labels(shop.view, replace(quick, splits=Splits(quick.splits.train)), begun, labels=labels)

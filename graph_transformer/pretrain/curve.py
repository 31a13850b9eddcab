"""What pre-training is worth where labels are few: the same training with and without it, on shares of the labels.

labels ─► thinned to 1 %, 10 %, 100 % ─► fit from nothing, fit from pre-trained weights ─► validation, test
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.evaluation import Scorer, test_split, validator
from graph_transformer.finetune.examples import Examples, Labels, OutcomeLabels, examples_of
from graph_transformer.finetune.loop import Limits, Report, silent
from graph_transformer.finetune.metrics import primary
from graph_transformer.finetune.plots.learning import FewLabels, plot_few_labels
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.stages import Stages

if TYPE_CHECKING:
    from graph_transformer.pretrain.pretrained import Pretrained
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView

SHARES = (0.01, 0.1, 1.0)
NEW, BEGUN = "from nothing", "pre-trained"


@dataclass(frozen=True)
class Thinned:
    """Labels of which only a share counts before a time; a smaller share is a part of a larger one.

    Later ones, which choose and measure, all count: what differs is what the model is fitted on.
    """

    labels: Labels
    share: float
    seed: int
    until_us: int

    def known(self, known_by_us: int | None) -> Examples:
        """Return the examples; which of them stay depends on their row and time, and the seed."""
        found = self.labels.known(known_by_us)
        return found.select((found.time_us >= self.until_us) | (_dice(found, self.seed) < self.share))


@dataclass(frozen=True, slots=True)
class Point:
    """One training: the share and number of labels it was fitted on, how it began, and what it reached."""

    share: float
    labels: int
    begun: str
    seed: int
    steps: int
    validation: float
    test: float | None


@dataclass(frozen=True)
class Curve:
    """All trainings of a curve; `metric` is what they reached."""

    metric: str
    points: tuple[Point, ...]

    def lines(self, split: str) -> dict[str, list[FewLabels]]:
        """Return the mean and spread over seeds of "validation" or "test", per beginning and share."""
        lines: dict[str, list[FewLabels]] = {}
        for begun, share in dict.fromkeys((point.begun, point.share) for point in self.points):
            chosen = [point for point in self.points if (point.begun, point.share) == (begun, share)]
            found = [value for point in chosen if (value := getattr(point, split)) is not None]
            if found:
                spread = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
                lines.setdefault(begun, []).append(FewLabels(share, float(np.mean(found)), spread))
        return lines

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write few_labels.json, and a picture per split; return the pictures."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"metric": self.metric, "points": [asdict(point) for point in self.points]}, indent=1)
        (folder / "few_labels.json").write_text(text, encoding="utf-8")
        return tuple(
            plot_few_labels(folder / f"few_labels_{split}.png", lines, metric=f"{split} {self.metric}")
            for split in ("validation", "test")
            if (lines := self.lines(split))
        )


def few_labels(
    view: GraphView,
    task: Task,
    pretrained: Pretrained,
    *,
    labels: Labels | None = None,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0, 1),
    report: Report = silent,
    each: Callable[[Point], None] = lambda _: None,
    runtime: Runtime | None = None,
) -> Curve:
    """Fit a task on shares of its training labels, from nothing and from pre-trained weights; without its refit.

    What is known of outcomes stays in the graph for both: only the examples that are fitted on are fewer. Validation
    and test are the choice's own metric on at most `validation_examples` examples each, the same ones for all, not
    calibrated. A share that holds no labels of both kinds is left out. `each` is called after every training.

    Raises:
        NotEnoughExamples: the largest share, or a later split, has too few labels.
        ValueError: the task has no validation split.
    """
    splits, target = task.splits, task.target
    if splits.validation is None:
        raise ValueError(f"task {task.name} has no validation split to choose by")
    labels = OutcomeLabels(view, target) if labels is None else labels
    later = examples_of(labels, target, splits.validation, known_by_us=splits.trained_by_us)
    last = None if splits.test is None else test_split(view, task, labels, splits.test)
    points = []
    for share, seed in product(shares, seeds):
        some = Thinned(labels, share, seed, splits.train.end_us)
        try:
            first = examples_of(some, target, splits.train, known_by_us=splits.validation.start_us)
        except NotEnoughExamples:
            if share == max(shares):
                raise
            continue
        for begun, weights in ((NEW, None), (BEGUN, pretrained)):
            options = Runtime() if runtime is None else runtime.named(f"{begun} {share:g} {seed}")
            stages = Stages(view, task, some, report, seed, None, options, weights)
            stage = stages.stage("train", first, later, Limits(task.training.steps))
            fitted, tested = stage.fitted, None
            if last is not None:
                scorer = Scorer(view, task, fitted.model, stage.encoding, stage.unit, options.device, splits.frozen_us)
                tested = validator(scorer, last, seed=0).measure(fitted.model)
            chosen = dict(fitted.validations)[fitted.step]
            points.append(Point(share, len(first), begun, seed, fitted.step, chosen, tested))
            each(points[-1])
    return Curve(primary(target, task.metric).metric, tuple(points))


def _dice(examples: Examples, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return float64[n] from 0 to 1: a hash of row, time and seed (after splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = examples.row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += examples.time_us.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) + np.uint64(seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return mixed.astype(np.float64) / float(2**64)

"""Answers of a model for examples, sampled at each example's own cut-off, and their metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graph_transformer.calibration import Calibration
from graph_transformer.device import CPU, find_device
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.finetune.examples import (
    Examples,
    Labels,
    OutcomeLabels,
    both_kinds,
    examples_of,
    linked_rows,
    without_known_entities,
)
from graph_transformer.finetune.feed import sample
from graph_transformer.finetune.loop import Validator
from graph_transformer.finetune.metrics import Metrics, measure, primary
from graph_transformer.heads import Unit
from graph_transformer.splits import Interval
from graph_transformer.target import Kind
from graph_transformer.task import Task
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from graph_transformer.checkpoint import Checkpoint
    from temporal_graph.view import GraphView

SEEDS = 256
"""Neighborhoods per batch: larger ones no longer gain speed on a CPU."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics with what they were computed from: calibrated outputs float64[n, outputs], and the examples."""

    metrics: Metrics
    output: NDArray[np.float64]
    examples: Examples


@dataclass(frozen=True)
class Scorer:
    """A model on a graph, for examples of its task; `frozen_us` is the latest time it may read the graph at."""

    view: GraphView
    task: Task
    model: nn.Module
    encoding: Encoding
    unit: Unit
    device: str = "cpu"
    frozen_us: int | None = None

    @torch.inference_mode()
    def raw(self, examples: Examples) -> NDArray[np.float64]:
        """Return the model's outputs float64[n, outputs] in the label's unit, not calibrated, one line an example."""
        sampler = Sampler(self.view, self.task.sampling_plan)
        outputs = np.empty((len(examples), self.task.target.outputs))
        for start in range(0, len(examples), SEEDS):
            chosen = np.arange(start, min(start + SEEDS, len(examples)))
            asked = examples.select(chosen)
            neighborhood = sample(sampler, self.task.target, asked, read_until_us=self.frozen_us)
            batch = collate(neighborhood, self.encoding, asked_time_us=asked.cutoff_time_us)
            outputs[chosen] = self.model(batch.to(self.device)).float().cpu().numpy()
        return self.unit.decode(outputs)

    def measured(self, calibration: Calibration, examples: Examples) -> Evaluation:
        """Return the evaluation on examples; with card precision where the task names an entity."""
        output = calibration.apply(self.raw(examples))
        return Evaluation(metrics_of(self.view, self.task, output, examples), output, examples)


def metrics_of(view: GraphView, task: Task, output: NDArray[np.float64], examples: Examples) -> Metrics:
    """Return the metrics of calibrated outputs float64[n, outputs] for examples of a task."""
    entity = None
    if task.entity is not None and task.target.event_level:
        entity = linked_rows(view, task.table, task.entity, examples.row, examples.cutoff_time_us)
    return measure(
        task.target,
        output,
        examples.label,
        time_us=examples.time_us,
        entity=entity,
        precision_at=task.precision_at,
    )


def validator(scorer_of: Scorer, examples: Examples, *, seed: int) -> Validator:
    """Return what judges a model on later examples: on all of them, or on a fixed part drawn from them.

    Of a binary target every example of the rarer kind stays, and those of the other kind that do are weighted.
    """
    task, name = scorer_of.task, primary(scorer_of.task.target, scorer_of.task.metric)
    chosen, weight = _part(task, examples, np.random.default_rng(seed))
    part = examples.select(chosen)

    def measured(model: nn.Module) -> float:
        scorer = replace(scorer_of, model=model)
        return name.compute(scorer.raw(part), part.label, weight)

    return Validator(name.metric, name.higher_is_better, measured)


def _part(
    task: Task, examples: Examples, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return positions of at most `validation_examples` examples, and weights that make them stand for all."""
    most = task.training.validation_examples
    if len(examples) <= most:
        return np.arange(len(examples)), None
    if task.target.kind is not Kind.BINARY:
        return np.sort(random.permutation(len(examples))[:most]), None
    kinds = sorted((np.flatnonzero(examples.label <= 0.5), np.flatnonzero(examples.label > 0.5)), key=len)
    rare, common = kinds[0][: most // 2] if len(kinds[0]) > most // 2 else kinds[0], kinds[1]
    kept = random.permutation(common)[: most - len(rare)]
    chosen = np.concatenate([rare, kept])
    weight = np.concatenate(
        [np.full(len(rare), len(kinds[0]) / len(rare)), np.full(len(kept), len(common) / len(kept))]
    )
    order = np.argsort(chosen, kind="stable")
    return chosen[order], weight[order]


def test_split(view: GraphView, task: Task, labels: Labels, interval: Interval) -> Examples:
    """Return the examples of a test interval, all labels known, without known entities if the task says so.

    What is known of entities counts from the start of the rows the finished model was fitted on, or as the task says.

    Raises:
        NotEnoughExamples: none, or all of one kind.
    """
    examples = examples_of(labels, task.target, interval, known_by_us=None)
    if not task.exclude_known_entities:
        return examples
    since_us = task.exclude_known_since_us
    if since_us is None:
        since_us = (task.splits.refit or task.splits.train).start_us
    return both_kinds(task.target, without_known_entities(view, task, examples, since_us=since_us), interval)


def evaluate(
    view: GraphView,
    checkpoint: Checkpoint,
    interval: Interval | None = None,
    *,
    labels: Labels | None = None,
    device: str = CPU,
) -> Evaluation:
    """Measure a checkpoint on a live graph, over an interval of times (default: its task's test split).

    `labels` of an entity-level task are given; those of an event-level one are read from the graph.

    Raises:
        NotEnoughExamples: the interval has no labels, or only of one kind.
        CheckpointMismatch: the graph's schema is not the one the model was trained on.
        DeviceUnavailable: the device is not there.
        ValueError: no interval is given and the task has no test split.
    """
    task = checkpoint.task
    interval = interval or task.splits.test
    if interval is None:
        raise ValueError(f"task {task.name} has no test split: give an interval")
    if labels is None:
        labels = OutcomeLabels(view, task.target)
    model, encoding = checkpoint.build(view.schema, view.strings)
    frozen_us = task.splits.frozen_us if interval == task.splits.test else None
    model.to(find_device(device))
    scorer = Scorer(view, task, model, encoding, checkpoint.unit, device, frozen_us=frozen_us)
    return scorer.measured(checkpoint.calibration, test_split(view, task, labels, interval))

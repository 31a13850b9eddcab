"""Answers of a model for examples, sampled at each example's own cut-off, and their metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from graph_transformer.calibration import Calibration
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.finetune.examples import Examples, both_kinds, examples_of, linked_rows, without_known_entities
from graph_transformer.finetune.feed import sample
from graph_transformer.finetune.metrics import Metrics, measure
from graph_transformer.model import GraphTransformer
from graph_transformer.task import Interval, Task
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from graph_transformer.checkpoint import Checkpoint
    from temporal_graph.view import GraphView

SEEDS = 256
"""Neighborhoods per batch: larger ones no longer gain speed on a CPU."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics with what they were computed from: calibrated logit float64[n], and the examples."""

    metrics: Metrics
    logit: NDArray[np.float64]
    examples: Examples


@dataclass(frozen=True)
class Scorer:
    """A model on a graph, for examples of its task."""

    view: GraphView
    task: Task
    model: GraphTransformer
    encoding: Encoding
    device: str = "cpu"

    @torch.inference_mode()
    def raw(self, examples: Examples) -> NDArray[np.float64]:
        """Return the model's own logits float64[n], not calibrated, in the order of the examples."""
        sampler = Sampler(self.view, self.task.sampling_plan)
        logits = np.empty(len(examples))
        for start in range(0, len(examples), SEEDS):
            chosen = np.arange(start, min(start + SEEDS, len(examples)))
            batch = collate(sample(sampler, self.task, examples.select(chosen)), self.encoding)
            logits[chosen] = self.model(batch.to(self.device)).float().cpu().numpy()
        return logits

    def measured(self, calibration: Calibration, examples: Examples) -> Evaluation:
        """Return the evaluation on examples; with card precision where the task names an entity."""
        logit = calibration.apply(self.raw(examples))
        task, entity = self.task, None
        if task.entity is not None:
            entity = linked_rows(self.view, task.table, task.entity, examples.row, examples.cutoff_time_us)
        metrics = measure(
            logit, examples.label, event_time_us=examples.event_time_us, entity=entity, precision_at=task.precision_at
        )
        return Evaluation(metrics, logit, examples)


def validator(
    view: GraphView, task: Task, encoding: Encoding, examples: Examples, *, seed: int, device: str = "cpu"
) -> Callable[[GraphTransformer], float]:
    """Return a function from a model to its average precision on all positives and a weighted part of the negatives."""
    positive, negative = np.flatnonzero(examples.label), np.flatnonzero(~examples.label)
    kept = np.random.default_rng(seed).permutation(negative)[: task.training.validation_negatives]
    chosen = examples.select(np.sort(np.concatenate([positive, kept])))
    weight = np.where(chosen.label, 1.0, len(negative) / max(1, len(kept)))

    def validate(model: GraphTransformer) -> float:
        logit = Scorer(view, task, model, encoding, device).raw(chosen)
        return float(average_precision_score(chosen.label, logit, sample_weight=weight))

    return validate


def test_split(view: GraphView, task: Task, interval: Interval) -> Examples:
    """Return the examples of a test interval, all labels known, without known entities if the task says so.

    What is known of entities counts from the start of the rows the finished model was fitted on.

    Raises:
        NotEnoughExamples: none, or all of one kind.
    """
    examples = examples_of(view, task, interval, known_by_us=None)
    if not task.exclude_known_entities:
        return examples
    fitted_on = task.splits.refit or task.splits.train
    return both_kinds(task, without_known_entities(view, task, examples, since_us=fitted_on.start_us))


def evaluate(view: GraphView, checkpoint: Checkpoint, interval: Interval | None = None) -> Evaluation:
    """Measure a checkpoint on a live graph, over an interval of event times (default: its task's test split).

    Raises:
        NotEnoughExamples: the interval has no labels, or only of one kind.
        CheckpointMismatch: the graph's schema is not the one the model was trained on.
        ValueError: no interval is given and the task has no test split.
    """
    task = checkpoint.task
    interval = interval or task.splits.test
    if interval is None:
        raise ValueError(f"task {task.name} has no test split: give an interval")
    model, encoding = checkpoint.build(view.schema, view.strings)
    return Scorer(view, task, model, encoding).measured(checkpoint.calibration, test_split(view, task, interval))

"""Fine-tuning from a live graph to a checkpoint: the entry that the command and the demo call.

graph, schema, task ─► stages ─► OUT_DIR: checkpoint, metrics, pictures
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.finetune.evaluation import Evaluation, evaluate
from graph_transformer.finetune.loop import Progress, Report, silent
from graph_transformer.finetune.metrics import Metrics
from graph_transformer.finetune.plots import plot_precision_recall, plot_reliability
from graph_transformer.finetune.stages import Stages
from graph_transformer.task import Task
from online_sampler.plan import SamplingPlan

if TYPE_CHECKING:
    from temporal_graph.schema import Schema
    from temporal_graph.view import GraphView

__all__ = ["OWN_COLUMNS", "Progress", "TrainResult", "evaluate", "own_columns", "train"]

OWN_COLUMNS = "test, own columns alone"


@runtime_checkable
class Viewed(Protocol):
    """Anything with a read face: a `TemporalGraph`."""

    def view(self) -> GraphView:
        """Return the read face."""


@dataclass(frozen=True)
class TrainResult:
    """What training left: the folder and version of the checkpoint, metrics per split, pictures, steps and seconds.

    metrics has "validation" and "test" where the task has those splits, and OWN_COLUMNS with `baseline`; `validations`
    are (step, average precision) as the fitting went.
    """

    folder: Path
    version: str
    checkpoint: Checkpoint
    metrics: Mapping[str, Metrics]
    steps: int
    seconds: float
    pictures: tuple[Path, ...]
    validations: tuple[tuple[int, float], ...]


def own_columns(task: Task) -> Task:
    """Return the same task on the row's own columns alone: no neighbors, the baseline that every graph has to beat."""
    return replace(task, sampling_plan=SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 0}}]}))


def train(
    graph: GraphView | Viewed,
    schema: Schema,
    task: Task,
    out_dir: Path,
    *,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Report = silent,
    baseline: bool = False,
    device: str = "cpu",
) -> TrainResult:
    """Fine-tune a model for a task on a graph; save it, with metrics and pictures, in `out_dir`.

    The graph holds the history with each outcome as a later version of its row; every example is sampled at its own
    cut-off. `budget_s` bounds the seconds of fitting: the schedule shrinks to it, and half goes to choosing where there
    is a refit. `baseline` also fits the model on the row's own columns
    alone and measures it on the test split. `progress` is called after every step. Equal seeds on one machine and
    thread count give equal weights, unless a budget ends them.

    Raises:
        TaskError, SchemaError: the task does not fit the schema.
        PlanError: the sampling plan names links the schema does not have.
        NotEnoughExamples: a split has no labels of one kind that are known in time.
        OSError: `out_dir` can not be written.
    """
    task.check(schema)
    view = graph.view() if isinstance(graph, Viewed) else graph
    started = time.monotonic()
    outcome = Stages(view, task, progress, seed, budget_s, device).run()
    evaluations = dict(outcome.evaluations)
    if baseline and task.splits.test is not None:
        alone = Stages(view, own_columns(task), progress, seed, budget_s, device).run()
        evaluations[OWN_COLUMNS] = alone.evaluations["test"]
    metrics = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    fitted, statistics = outcome.stage.fitted, outcome.stage.statistics
    checkpoint = Checkpoint(
        task=task,
        fingerprint=schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=task.model,
        calibration=outcome.calibration,
        weights={name: value.detach().cpu() for name, value in fitted.model.state_dict().items()},
        metrics={name: found.to_dict() for name, found in metrics.items()},
    )
    version = checkpoint.save(out_dir)
    return TrainResult(
        folder=out_dir,
        version=version,
        checkpoint=checkpoint,
        metrics=metrics,
        steps=fitted.step,
        seconds=time.monotonic() - started,
        pictures=_pictures(out_dir, evaluations),
        validations=fitted.validations,
    )


def _pictures(out_dir: Path, evaluations: Mapping[str, Evaluation]) -> tuple[Path, ...]:
    if not evaluations:
        return ()
    curves = {name: (found.logit, found.examples.label) for name, found in evaluations.items()}
    shown = evaluations.get("test") or evaluations["validation"]
    return (
        plot_precision_recall(out_dir / "precision_recall.png", curves),
        plot_reliability(out_dir / "reliability.png", shown.logit, shown.examples.label),
    )

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
from graph_transformer.finetune.evaluation import Evaluation, evaluate, metrics_of
from graph_transformer.finetune.examples import Examples, Labels, OutcomeLabels, examples_of
from graph_transformer.finetune.floors import measure_floors
from graph_transformer.finetune.loop import Fitted, Progress, Report, silent
from graph_transformer.finetune.metrics import Metrics, primary
from graph_transformer.finetune.plots import Answers, draw_answers, plot_learning_curve
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.stages import Outcome, Stages
from graph_transformer.finetune.state import forget
from graph_transformer.pretrain.pretrained import Pretrained
from graph_transformer.task import Task
from online_sampler.plan import ALONE, SamplingPlan

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

    metrics has "validation" and "test" where the task has those splits, OWN_COLUMNS with `baseline`, and the floors by
    name; `validations` are (step, metric) as the fitting went; `wait_share` is the part of its time that the model
    waited for samples.
    """

    folder: Path
    version: str
    checkpoint: Checkpoint
    metrics: Mapping[str, Metrics]
    steps: int
    seconds: float
    pictures: tuple[Path, ...]
    validations: tuple[tuple[int, float], ...]
    wait_share: float = 0.0


def own_columns(task: Task) -> Task:
    """Return the same task on the row's own columns alone: no neighbors, the baseline that every graph has to beat."""
    return replace(task, sampling_plan=SamplingPlan.from_dict(ALONE))


def train(
    graph: GraphView | Viewed,
    schema: Schema,
    task: Task,
    out_dir: Path,
    *,
    labels: Labels | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Report = silent,
    baseline: bool = False,
    floors: bool = False,
    pretrained: Path | None = None,
    runtime: Runtime | None = None,
) -> TrainResult:
    """Fine-tune a model for a task on a graph; save it, with metrics and pictures, in `out_dir`.

    The graph holds the history with each outcome as a later version of its row; every example is sampled at its own
    cut-off. `labels` of an entity-level task are given; those of an event-level one are read from the graph. `budget_s`
    bounds the seconds of fitting: the schedule shrinks to it, and half goes to choosing where there is a refit.
    `baseline` also fits the model on the row's own columns alone, `floors` measures what needs no graph; both on the
    test split. `pretrained` is the folder of a pre-trained model to begin with. `progress` is called after every step.
    Equal seeds on one machine and thread count give equal weights, unless a budget ends them.

    Raises:
        TaskError, SchemaError: the task does not fit the schema.
        PlanError: the sampling plan names links the schema does not have.
        CheckpointCorrupt, CheckpointMismatch: `pretrained` holds no pre-trained model, or none of this task.
        StateMismatch: the state to go on from is of another training.
        TrainingDiverged: the loss is no number any more.
        NotEnoughExamples: a split has no labels of one kind that are known in time.
        OSError: `out_dir` can not be written.
    """
    runtime = Runtime() if runtime is None else runtime
    task.check(schema)
    view = graph.view() if isinstance(graph, Viewed) else graph
    started = time.monotonic()
    if labels is None:
        labels = OutcomeLabels(view, task.target)
    begun = None if pretrained is None else Pretrained.load(pretrained)
    if begun is not None:
        begun.check(schema, task)
    outcome = Stages(view, task, labels, progress, seed, budget_s, runtime, begun).run()
    evaluations = dict(outcome.evaluations)
    if baseline and task.splits.test is not None:
        alone = Stages(view, own_columns(task), labels, progress, seed, budget_s, runtime.named("own_columns")).run()
        evaluations[OWN_COLUMNS] = alone.evaluations["test"]
    if floors and "test" in evaluations:
        evaluations |= _floors(view, task, labels, evaluations["test"].examples)
    metrics = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    checkpoint = _checkpoint(schema, task, outcome, metrics)
    fitted = outcome.stage.fitted
    pictures: tuple[Path, ...] = ()
    if runtime.ranks.is_first:
        checkpoint.save(out_dir)
        pictures = _pictures(out_dir, task, fitted, evaluations)
        if runtime.state is not None:
            forget(runtime.state)
    return TrainResult(
        folder=out_dir,
        version=checkpoint.version,
        checkpoint=checkpoint,
        metrics=metrics,
        steps=fitted.step,
        seconds=time.monotonic() - started,
        pictures=pictures,
        validations=fitted.validations,
        wait_share=fitted.wait_share,
    )


def _checkpoint(schema: Schema, task: Task, outcome: Outcome, metrics: Mapping[str, Metrics]) -> Checkpoint:
    stage = outcome.stage
    return Checkpoint(
        task=task,
        fingerprint=schema.fingerprint(stage.statistics.tables()),
        statistics=stage.statistics,
        model=task.model,
        unit=stage.unit,
        calibration=outcome.calibration,
        weights={name: value.detach().cpu() for name, value in stage.fitted.model.state_dict().items()},
        metrics={name: found.to_dict() for name, found in metrics.items()},
    )


def _floors(view: GraphView, task: Task, labels: Labels, test: Examples) -> dict[str, Evaluation]:
    """Return the floors on the test examples, fitted on the rows that the finished model was."""
    splits, target = task.splits, task.target
    trained_by_us, again = splits.trained_by_us, None
    if splits.validation is None:
        return {}
    later = examples_of(labels, target, splits.validation, known_by_us=trained_by_us)
    first = examples_of(labels, target, splits.train, known_by_us=splits.validation.start_us)
    if splits.refit is not None:
        again = examples_of(labels, target, splits.refit, known_by_us=trained_by_us)
    found = measure_floors(
        view,
        target,
        first,
        later,
        test,
        refit=again,
        past=labels.known(None),
        entity=task.entity,
        frozen_us=splits.frozen_us,
        measured=lambda output, examples: metrics_of(view, task, output, examples),
    )
    return {f"test, {name}": Evaluation(floor.metrics, floor.output, test) for name, floor in found.items()}


def _pictures(out_dir: Path, task: Task, fitted: Fitted, evaluations: Mapping[str, Evaluation]) -> tuple[Path, ...]:
    if not evaluations:
        return ()
    answers = {name: Answers(found.output, found.examples.label) for name, found in evaluations.items()}
    shown = "test" if "test" in answers else "validation"
    floors = [name for name in answers if name not in ("test", "validation")]
    drawn = draw_answers(out_dir, task.target, answers, shown=shown, floors=floors)
    metric = primary(task.target, task.metric).metric
    learning = plot_learning_curve(
        out_dir / "learning.png", fitted.losses, fitted.validations, metric=metric, chosen_step=fitted.step
    )
    return (*drawn, learning)

"""``nowgraph evaluate``: how good a checkpoint is on a graph, over times with known labels; figures and pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nowgraph.commands.options import AsJson, CheckpointPath, CheckpointSchemaPath, Device, History, Quiet
from nowgraph.commands.ranking import evaluate_ranking, report_ranking
from nowgraph.errors import UsageError
from nowgraph.report import emit, without_blank_columns

if TYPE_CHECKING:
    from graph_transformer.finetune.examples import Labels
    from graph_transformer.splits import Interval
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView

PICTURES = "evaluation"
"""Where the pictures go unless it is said: a folder of the checkpoint's."""


def evaluate(
    *,
    checkpoint: CheckpointPath,
    schema: CheckpointSchemaPath = None,
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="A running updater's graph instead of files.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels of entities, as `nowgraph labels` writes them. Default: those of the training."),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Of the times measured (ISO). Default: the test split.")] = None,
    end: Annotated[str | None, typer.Option(help="Their end, not measured itself.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the pictures. Default: evaluation, in CHECKPOINT.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 1,
    device: Device = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint on questions whose answers are known by now, each asked at its own cut-off.

    Labels of events are read from the graph; those of entities come from the label file that training left.
    """
    import torch

    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.device import find_device
    from graph_transformer.finetune.evaluation import evaluate as measure
    from graph_transformer.finetune.plots import Answers, draw_answers
    from graph_transformer.target import Kind
    from nowgraph.assembly import schema_of, warn_without_labels
    from nowgraph.loading import opened_graph
    from temporal_graph.schema import load_schema

    torch.set_num_threads(threads)
    find_device(device)  # before the graph is loaded
    loaded = load_schema(schema_of(checkpoint, schema))
    model = Checkpoint.load(checkpoint, loaded)
    interval = _interval(model.task, start, end)
    what = _name(interval)
    if model.task.target.kind is Kind.RANKING:
        with opened_graph(loaded, history or [], arena, quiet=quiet) as view:
            measured = evaluate_ranking(model, checkpoint, view, interval, labels, device=device, quiet=quiet)
        report_ranking(checkpoint, model.task, what, measured, as_json=as_json)
        return
    with opened_graph(loaded, history or [], arena, quiet=quiet) as view:
        warn_without_labels(view, model.task.target)
        began_s = time.monotonic()
        found = measure(view, model, interval, labels=_labels(view, model.task, checkpoint, labels), device=device)
        seconds = time.monotonic() - began_s
    folder = output if output is not None else checkpoint / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_answers(folder, model.task.target, {what: Answers(found.output, found.examples.label)}, shown=what)
    document: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "model_version": model.version,
        "task": model.task.name,
        "kind": model.task.target.kind.value,
        "measured_on": what,
        "metrics": found.metrics.to_dict(),
        "pictures": [str(path) for path in pictures],
        "seconds": seconds,
    }
    rows = without_blank_columns([{"measured on": what, **found.metrics.figures()}])
    emit(rows, title=f"Task {model.task.name}, version {model.version}", as_json=as_json, document=document)
    if not as_json:
        typer.echo(f"Pictures: {', '.join(map(str, pictures))}" if pictures else "No pictures for this kind of task")


def _interval(task: Task, start: str | None, end: str | None) -> Interval | None:
    """The times to measure; None is the task's own test split. Raises UsageError without either."""
    from graph_transformer.splits import Interval, parse_time
    from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

    if start is None and end is None:
        if task.splits.test is None:
            raise UsageError(f"task {task.name} has no test split: --start and --end say what to measure on")
        return None
    start_us = ALWAYS_US if start is None else parse_time("--start", start)
    end_us = TIME_MAX_US if end is None else parse_time("--end", end)
    if end_us <= start_us:
        raise UsageError(f"--end {end}: expected a time after --start {start}")
    return Interval(start_us, end_us)


def _name(interval: Interval | None) -> str:
    from graph_transformer.splits import iso_time
    from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

    if interval is None:
        return "test"
    start = "" if interval.start_us == ALWAYS_US else f"from {iso_time(interval.start_us)}"
    end = "" if interval.end_us == TIME_MAX_US else f"to {iso_time(interval.end_us)}"
    return f"{start} {end}".strip()


def _labels(view: GraphView, task: Task, checkpoint: Path, given: Path | None) -> Labels | None:
    """Where the labels come from: a file, for entities; None says that the graph has them.

    Raises UsageError where there is no file, or one that is not asked for.
    """
    from graph_transformer.finetune.query.bind import bind_query
    from graph_transformer.finetune.query.parse import parse_query
    from graph_transformer.finetune.query.task_table import read_labels
    from graph_transformer.finetune.question import QueryLabels

    if task.target.event_level:
        if given is not None:
            raise UsageError(f"--labels {given}: task {task.name} asks about events, whose labels are in the graph")
        if task.query is None:
            return None
        return QueryLabels(view, bind_query(parse_query(task.query), view.schema), task.target)
    file = given if given is not None else checkpoint / f"{task.name}.parquet"
    if not file.is_file():
        raise UsageError(f"{file}: no such file: --labels says where the labels of {task.name} are")
    return read_labels(file, view)

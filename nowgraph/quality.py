"""What the measurement of quality needs of a checkpoint: its task in a few words, without the model or its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graph_transformer.splits import Interval
from graph_transformer.target import QUANTILES, Kind, Target
from graph_transformer.task import Task, task_from_dict
from nowgraph.errors import UsageError
from nowgraph.report import iso_text
from stream.quality.config import AnswerKind, Interactions, QualityTask
from stream.quality.exposition import window_name
from stream.quality.report import Report
from temporal_graph.schema import ColumnKind, Schema

INPUTS_MAX = 32
"""Numerical columns whose drift is measured: each is a series for every model and window."""
_MANIFEST = "checkpoint.json"


def task_of(checkpoint: Path) -> Task:
    """The task of a checkpoint, read without its weights; raises UsageError for a folder that has none."""
    path = checkpoint / _MANIFEST
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
        return task_from_dict(manifest["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: no checkpoint of nowgraph: {error!r}") from error


def quality_task(
    task: Task,
    schema: Schema,
    *,
    tenant: str = "",
    label_delay_us: int | None = None,
    absence_is_negative: bool | None = None,
) -> QualityTask:
    """What is measured of a task. Raises UsageError where it does not say how long labels take, and nobody else did.

    Without a given delay it is the horizon of a task about entities, and of one about events the gap that its splits
    leave for labels. Without a word on absence it is a negative of a yes-or-no task about events, as in fraud: what
    nobody reported in time was none.
    """
    target = task.target
    table = schema.table(target.table)
    if label_delay_us is None:
        label_delay_us = _label_delay_us(task)
    yes_or_no = target.kind in (Kind.BINARY, Kind.MULTILABEL)
    if absence_is_negative and not yes_or_no:
        raise UsageError(f"task {task.name}: a label that is absent is no {target.kind.value}, so --absence is unknown")
    if absence_is_negative is None:
        absence_is_negative = target.event_level and target.kind is Kind.BINARY
    inputs = [column.name for column in table.columns if column.kind is ColumnKind.NUMERICAL and not column.outcome]
    ranked = target.ranked
    return QualityTask(
        name=task.name,
        kind=AnswerKind(target.kind.value),
        table=target.table,
        event_level=target.event_level,
        label_delay_us=label_delay_us,
        tenant=tenant,
        outcome=target.column,
        classes=target.classes,
        steps=target.steps,
        levels=QUANTILES if target.is_number else (),
        label_table=target.task_table,
        label_columns=_label_columns(target),
        interactions=None if ranked is None else Interactions(ranked.interactions, ranked.user_link, ranked.item_link),
        absence_is_negative=absence_is_negative,
        inputs=tuple(inputs[:INPUTS_MAX]) if target.event_level else (),
    )


def rows_of(report: Report) -> list[dict[str, Any]]:
    """A report as rows of one shape, for a table: figures that a row's task does not have are None."""
    names = list(dict.fromkeys(name for one in report.measured for name in asdict(one.figures)))
    rows = []
    for one in report.measured:
        figures = asdict(one.figures)
        rows.append(
            {
                "task": one.stream.task,
                "model": one.stream.model_version,
                "role": one.stream.role,
                "window": window_name(one.window_us),
                "answers": one.answers,
                "examples": one.examples,
                "unlabeled": one.unlabeled,
                **{name.replace("_", " "): figures.get(name) for name in names},
                "score drift": one.score_drift,
            }
        )
    return rows


def document_of(report: Report) -> dict[str, Any]:
    """A report as one JSON document; times as microseconds and as text."""
    return {
        "watermark": iso_text(report.watermark_us),
        **asdict(report),
        "measured": [
            {**asdict(one), **asdict(one.stream), "window": window_name(one.window_us)} for one in report.measured
        ],
    }


def _label_delay_us(task: Task) -> int:
    if not task.target.event_level:
        return task.target.horizon_us
    gaps = [later.start_us - earlier.end_us for earlier, later in _gaps(task)]
    found = next((gap for gap in gaps if gap > 0), None)
    if found is None:
        raise UsageError(
            f"task {task.name}: its splits leave no gap for labels: say how long they take by --label-delay"
        )
    return found


def _gaps(task: Task) -> Iterator[tuple[Interval, Interval]]:
    splits = task.splits
    for earlier, later in ((splits.train, splits.validation), (splits.refit, splits.test), (splits.train, splits.test)):
        if earlier is not None and later is not None:
            yield earlier, later


def _label_columns(target: Target) -> tuple[str, ...]:
    """The columns of a table of past labels: `label`, and of a forecast `label_2`, ... ."""
    if target.event_level:
        return ()
    return ("label", *(f"label_{step + 1}" for step in range(1, target.steps)))

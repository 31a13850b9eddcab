"""A task: which outcome of which table is predicted, from which neighborhood, trained and measured on which times.

    task.yaml ─► load_task ─► Task ─► finetune.train, and a part of the checkpoint

Event-level and binary: each row of `table` with a known `outcome` is an example, asked one microsecond before it
happens. Times are ISO dates or date-times (UTC); an interval holds its start and not its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError
from online_sampler.plan import SamplingPlan
from temporal_graph.schema import ColumnKind, Schema
from temporal_graph.time_rule import time_us_from_datetime

KIND_BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Interval:
    """Event times from `start_us` to before `end_us`."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Splits:
    """Which rows train, choose, refit and measure, by their event time.

    A label counts for training only if it is visible by the time that training stands for: the start of `validation`
    for `train` where there is one, `known_by` otherwise and for `refit` (the same recipe again on later rows, for as
    many steps as validation chose). `known_by` defaults to the start of `test`. Validation labels too must be visible
    by `known_by`.
    """

    train: Interval
    validation: Interval | None = None
    refit: Interval | None = None
    test: Interval | None = None
    known_by_us: int | None = None

    @property
    def trained_by_us(self) -> int | None:
        """The time the finished model stands for; None: everything in the graph is known."""
        return self.known_by_us if self.known_by_us is not None else (self.test.start_us if self.test else None)


@dataclass(frozen=True, slots=True)
class Training:
    """How a model is fitted: `steps` of AdamW on `positives` + `negatives` examples each, with fresh negatives."""

    steps: int = 600
    positives: int = 24
    negatives: int = 168
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warm_up: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.995
    evaluate_every: int = 100
    validation_negatives: int = 10_000

    def __post_init__(self) -> None:
        for name in ("steps", "positives", "negatives", "evaluate_every", "validation_negatives"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TaskError(f"training.{name}", "a positive integer", value)
        for name, high in (("warm_up", 1.0), ("ema", 1.0)):
            if not 0.0 <= getattr(self, name) < high:
                raise TaskError(f"training.{name}", "a number from 0 to below 1", getattr(self, name))
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0.0:
                raise TaskError(f"training.{name}", "a number above 0", getattr(self, name))


@dataclass(frozen=True, slots=True)
class Task:
    """One predictive task; `entity` names a link of the table by which answers are grouped (the card of a payment)."""

    name: str
    table: str
    outcome: str
    kind: str
    splits: Splits
    sampling_plan: SamplingPlan
    model: ModelConfig = field(default_factory=ModelConfig)
    training: Training = field(default_factory=Training)
    entity: str | None = None
    precision_at: int = 100
    exclude_known_entities: bool = False

    def check(self, schema: Schema) -> None:
        """Raise TaskError or SchemaError unless the schema has the table, a boolean outcome and the entity."""
        table = schema.table(self.table)
        column = table.column(self.outcome)
        if column.kind is not ColumnKind.BOOLEAN:
            raise TaskError("outcome", "a boolean column (kind: binary)", f"{self.outcome} ({column.kind.value})")
        if table.outcome is None or table.outcome.name != self.outcome:
            raise TaskError("outcome", "the column the schema marks as the table's outcome", self.outcome)
        if table.time_column is None:
            raise TaskError("table", "a table with a time column", self.table)
        if self.entity is not None:
            table.link(self.entity)

    def to_dict(self) -> dict[str, Any]:
        """Return the form `task_from_dict` reads."""
        splits = {
            name: {"start": _iso(interval.start_us), "end": _iso(interval.end_us)}
            for name in ("train", "validation", "refit", "test")
            if (interval := getattr(self.splits, name)) is not None
        }
        if self.splits.known_by_us is not None:
            splits["known_by"] = _iso(self.splits.known_by_us)  # type: ignore[assignment]
        return {
            "version": 1,
            "name": self.name,
            "table": self.table,
            "outcome": self.outcome,
            "kind": self.kind,
            "entity": self.entity,
            "precision_at": self.precision_at,
            "exclude_known_entities": self.exclude_known_entities,
            "splits": splits,
            "sampling_plan": self.sampling_plan.to_dict(),
            "model": self.model.to_dict(),
            "training": {option.name: getattr(self.training, option.name) for option in fields(Training)},
        }


def load_task(path: Path) -> Task:
    """Read a task file.

    Raises:
        TaskError: it does not say what is needed, with the key.
        PlanError: its sampling plan is none.
        OSError: it can not be read.
    """
    return parse_task(path.read_text(encoding="utf-8"))


def parse_task(text: str) -> Task:
    """Parse the YAML form; raises as `load_task`."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TaskError("task", "a YAML mapping", str(error)) from error
    return task_from_dict(values)


def task_from_dict(values: object) -> Task:
    """Build a task from plain values; raises as `load_task`."""
    names = ["version", *(option.name for option in fields(Task))]
    mapping = _mapping("task", values, names)
    if mapping.get("version") != 1:
        raise TaskError("version", "1", mapping.get("version"))
    for name in ("name", "table", "outcome"):
        if not isinstance(mapping.get(name), str):
            raise TaskError(name, "a name", mapping.get(name))
    kind = mapping.get("kind", KIND_BINARY)
    if kind != KIND_BINARY:
        raise TaskError("kind", KIND_BINARY, kind)
    options = {name: mapping[name] for name in ("precision_at", "exclude_known_entities") if name in mapping}
    return Task(
        name=mapping["name"],
        table=mapping["table"],
        outcome=mapping["outcome"],
        kind=kind,
        entity=mapping.get("entity"),
        splits=_splits(mapping.get("splits")),
        sampling_plan=SamplingPlan.from_dict(mapping.get("sampling_plan")),
        model=ModelConfig.from_dict(_mapping("model", mapping.get("model", {}), None)),
        training=Training(
            **_mapping("training", mapping.get("training", {}), [option.name for option in fields(Training)])
        ),
        **options,
    )


def _splits(values: object) -> Splits:
    mapping = _mapping("splits", values, ["train", "validation", "refit", "test", "known_by"])
    if "train" not in mapping:
        raise TaskError("splits.train", "an interval {start, end}", None)
    intervals = {
        name: _interval(f"splits.{name}", mapping[name])
        for name in ("train", "validation", "refit", "test")
        if mapping.get(name) is not None
    }
    known_by = mapping.get("known_by")
    splits = Splits(**intervals, known_by_us=None if known_by is None else _time("splits.known_by", known_by))
    order = [name for name in ("train", "validation", "test") if name in intervals]
    for earlier, later in pairwise(order):
        if intervals[later].start_us < intervals[earlier].end_us:
            raise TaskError(f"splits.{later}.start", f"a time at or after the end of {earlier}", mapping[later])
    refit = splits.refit
    if refit is not None:
        if splits.validation is None:
            raise TaskError("splits.refit", "a validation split, which chooses the steps", mapping["refit"])
        if splits.test is not None and refit.end_us > splits.test.start_us:
            raise TaskError("splits.refit.end", "a time at or before the start of test", mapping["refit"])
    if splits.test is not None and known_by is not None and (splits.known_by_us or 0) > splits.test.start_us:
        raise TaskError("splits.known_by", "a time at or before the start of test", known_by)
    return splits


def _interval(path: str, value: object) -> Interval:
    mapping = _mapping(path, value, ["start", "end"])
    interval = Interval(_time(f"{path}.start", mapping.get("start")), _time(f"{path}.end", mapping.get("end")))
    if interval.end_us <= interval.start_us:
        raise TaskError(f"{path}.end", "a time after the start", mapping.get("end"))
    return interval


def _mapping(path: str, value: object, names: list[str] | None) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TaskError(path, "a mapping", value)
    for name in value:
        if names is not None and name not in names:
            raise TaskError(f"{path}.{name}", f"one of {', '.join(names)}", name)
    return dict(value)


def _time(path: str, value: object) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise TaskError(path, "an ISO date or date-time", value) from None
    if isinstance(value, datetime):
        return time_us_from_datetime(value)
    if isinstance(value, date):
        return time_us_from_datetime(datetime(value.year, value.month, value.day, tzinfo=UTC))
    raise TaskError(path, "an ISO date or date-time", value)


def _iso(time_us: int) -> str:
    seconds, micros = divmod(time_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros).isoformat()

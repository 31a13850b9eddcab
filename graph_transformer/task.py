"""A task: what is asked of which table, from which neighborhood, trained and measured on which times.

    task.yaml or a predictive query ─► Task ─► finetune.train, and a part of the checkpoint

An event-level task asks each row of `table` one microsecond before it happens; an entity-level one asks rows of `table`
as of a time. A task that was made from a query keeps the query's text for people; what decides is in the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import yaml

from graph_transformer.config import TOLD, ModelConfig
from graph_transformer.errors import TaskError
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.splits import Interval, Splits, iso_time, parse_time, splits_from_dict
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.training import Training
from online_sampler.plan import SamplingPlan
from temporal_graph.duration import format_duration, parse_duration_us
from temporal_graph.schema import ColumnKind, Schema

__all__ = ["Interval", "Splits", "Task", "Training", "parse_task", "task_from_dict"]

_KINDS_OF_COLUMN = {
    Kind.BINARY: (ColumnKind.BOOLEAN, ColumnKind.NUMERICAL),
    Kind.MULTICLASS: (ColumnKind.CATEGORICAL,),
    Kind.MULTILABEL: (ColumnKind.MULTICATEGORICAL,),
    Kind.REGRESSION: (ColumnKind.NUMERICAL,),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One predictive task.

    `metric` chooses among validations, the kind's own where it is None; `entity` names a link of the table by which
    answers are grouped (the card of a payment). `exclude_known_entities`: the test leaves out entities known for a
    positive outcome since the fitted rows began, or since `exclude_known_since_us`. `ranking` holds the options of a
    ranking and says nothing of other kinds.
    """

    name: str
    target: Target
    splits: Splits
    sampling_plan: SamplingPlan
    model: ModelConfig = field(default_factory=ModelConfig)
    training: Training = field(default_factory=Training)
    query: str | None = None
    metric: str | None = None
    entity: str | None = None
    precision_at: int = 100
    exclude_known_entities: bool = False
    exclude_known_since_us: int | None = None
    ranking: RankingConfig = field(default_factory=RankingConfig)

    @property
    def table(self) -> str:
        """The seeds' table."""
        return self.target.table

    @property
    def outcome(self) -> str | None:
        """The column predicted, of an event-level task."""
        return self.target.column

    def check(self, schema: Schema) -> None:
        """Raise TaskError or SchemaError unless the schema has the table, the outcome and the entity."""
        table = schema.table(self.table)
        if self.target.event_level:
            self._check_event_level(schema)
        elif self.target.task_table is not None:
            schema.table(self.target.task_table)
        if self.target.ranked is not None:
            self._check_ranked(schema, self.target.ranked)
        if self.entity is not None:
            table.link(self.entity)

    def _check_event_level(self, schema: Schema) -> None:
        table, name, kind = schema.table(self.table), self.target.column, self.target.kind
        if name is None:
            raise TaskError("outcome", "the column that is predicted", None)
        column, kinds = table.column(name), _KINDS_OF_COLUMN.get(kind, ())
        if column.kind not in kinds:
            expected = " or ".join(f"a {found.value} column" for found in kinds)
            raise TaskError("outcome", f"{expected} (kind: {kind.value})", f"{name} ({column.kind.value})")
        if table.outcome is None or table.outcome.name != name:
            raise TaskError("outcome", "the column the schema marks as the table's outcome", name)
        if table.time_column is None:
            raise TaskError("table", "a table with a time column", self.table)

    def _check_ranked(self, schema: Schema, ranked: Ranked) -> None:
        interactions = schema.table(ranked.interactions)
        if interactions.time_column is None:
            raise TaskError("ranked.interactions", "a table with a time column", ranked.interactions)
        for name, link, parent in (
            ("user_link", ranked.user_link, self.table),
            ("item_link", ranked.item_link, ranked.items),
        ):
            if interactions.link(link).parent != parent:
                raise TaskError(f"ranked.{name}", f"a link of {ranked.interactions} to {parent}", link)
        for name in TOLD:
            if getattr(self.model, name):
                raise TaskError(f"model.{name}", "false, as towers of a ranking read none", True)

    def to_dict(self) -> dict[str, Any]:
        """Return the form `task_from_dict` reads."""
        ranking = {"ranking": self.ranking.to_dict()} if self.target.kind is Kind.RANKING else {}
        return {
            "version": 1,
            "name": self.name,
            **target_to_dict(self.target),
            "query": self.query,
            "metric": self.metric,
            "entity": self.entity,
            "precision_at": self.precision_at,
            "exclude_known_entities": self.exclude_known_entities,
            "exclude_known_since": None
            if self.exclude_known_since_us is None
            else iso_time(self.exclude_known_since_us),
            "splits": self.splits.to_dict(),
            "sampling_plan": self.sampling_plan.to_dict(),
            "model": self.model.to_saved(),
            "training": self.training.to_dict(),
            **ranking,
        }


TARGET_KEYS = ("table", "outcome", "kind", "level", "classes", "horizon", "steps", "task_table", "ranked")


def target_to_dict(target: Target) -> dict[str, Any]:
    """Return a target as a task file has it, keys that do not apply left out."""
    values: dict[str, Any] = {"table": target.table, "kind": target.kind.value}
    values["level"] = "event" if target.event_level else "entity"
    if target.column is not None:
        values["outcome"] = target.column
    if target.classes:
        values["classes"] = list(target.classes)
    if target.horizon_us:
        values["horizon"] = format_duration(target.horizon_us)
    if target.steps != 1:
        values["steps"] = target.steps
    if target.task_table is not None:
        values["task_table"] = target.task_table
    if target.ranked is not None:
        values["ranked"] = asdict(target.ranked)
    return values


def target_from_dict(values: Mapping[str, Any]) -> Target:
    """Build a target from a task file's keys; raises TaskError."""
    table, outcome = values.get("table"), values.get("outcome")
    if not isinstance(table, str):
        raise TaskError("table", "a name", table)
    level = values.get("level", "event")
    if level not in ("event", "entity"):
        raise TaskError("level", "event or entity", level)
    if level == "event" and not isinstance(outcome, str):
        raise TaskError("outcome", "a name", outcome)
    found = values.get("kind", Kind.BINARY.value)
    kinds = [kind.value for kind in Kind]
    if found not in kinds:
        raise TaskError("kind", f"one of {', '.join(kinds)}", found)
    try:
        horizon_us = parse_duration_us(str(values.get("horizon", "0s")))
    except ValueError:
        raise TaskError("horizon", "a duration such as 30d", values.get("horizon")) from None
    classes, steps = values.get("classes", ()), values.get("steps", 1)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TaskError("classes", "a list of texts", classes)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise TaskError("steps", "a positive integer", steps)
    if found == Kind.RANKING and level != "entity":
        raise TaskError("level", "entity: a ranking is asked as of a time", level)
    return Target(
        kind=Kind(found),
        table=table,
        event_level=level == "event",
        column=outcome,
        classes=tuple(classes),
        horizon_us=horizon_us,
        steps=steps,
        task_table=values.get("task_table"),
        ranked=_ranked(Kind(found), values.get("ranked")),
    )


def _ranked(kind: Kind, values: object) -> Ranked | None:
    """Return what a ranking orders, None of other kinds; raises TaskError."""
    if kind is not Kind.RANKING:
        if values is not None:
            raise TaskError("ranked", f"nothing (kind: {kind.value})", values)
        return None
    names = ("interactions", "user_link", "item_link", "items")
    mapping = mapping_of("ranked", values, [*names, "top"])
    for name in names:
        if not isinstance(mapping.get(name), str):
            raise TaskError(f"ranked.{name}", "a name", mapping.get(name))
    top = mapping.get("top")
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise TaskError("ranked.top", "a positive integer", top)
    return Ranked(**mapping)


def parse_task(text: str) -> Task:
    """Parse the YAML form of a task in which everything is decided; `finetune.question` reads those with a query.

    Raises:
        TaskError: it does not say what is needed, with the key.
        PlanError: its sampling plan is none.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TaskError("task", "a YAML mapping", str(error)) from error
    return task_from_dict(values)


def task_from_dict(values: object) -> Task:
    """Build a task from plain values; raises as `parse_task`."""
    own = [option.name for option in fields(Task) if option.name not in ("target", "exclude_known_since_us")]
    own.append("exclude_known_since")
    mapping = mapping_of("task", values, ["version", *own, *TARGET_KEYS])
    if mapping.get("version") != 1:
        raise TaskError("version", "1", mapping.get("version"))
    if not isinstance(mapping.get("name"), str):
        raise TaskError("name", "a name", mapping.get("name"))
    names = ("query", "metric", "entity", "precision_at", "exclude_known_entities")
    since = mapping.get("exclude_known_since")
    return Task(
        name=mapping["name"],
        target=target_from_dict(mapping),
        splits=splits_from_dict(mapping.get("splits")),
        sampling_plan=SamplingPlan.from_dict(mapping.get("sampling_plan")),
        model=ModelConfig.from_dict(mapping_of("model", mapping.get("model", {}), None)),
        training=Training.from_dict(mapping_of("training", mapping.get("training", {}), None)),
        ranking=RankingConfig.from_dict(mapping_of("ranking", mapping.get("ranking", {}), None)),
        exclude_known_since_us=None if since is None else parse_time("exclude_known_since", since),
        **{name: mapping[name] for name in names if name in mapping},
    )


def mapping_of(path: str, value: object, names: list[str] | None) -> dict[str, Any]:
    """Return the mapping; raises TaskError for anything else, or for a key that is not among `names`."""
    if not isinstance(value, Mapping):
        raise TaskError(path, "a mapping", value)
    for name in value:
        if names is not None and name not in names:
            raise TaskError(f"{path}.{name}", f"one of {', '.join(names)}", name)
    return dict(value)

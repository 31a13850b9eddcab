"""What a person writes down of a task: what is asked, when it is measured, and as much of a plan as they care for.

    version: 1
    name: churn
    query: PREDICT COUNT(orders.*, 0, 30, days) = 0 FOR EACH customers.customer_id
    anchors: {step: 7d, first: 2024-01-01, last: 2024-12-01}
    splits: {train: {start: ..., end: ...}, validation: ..., refit: ..., test: ..., frozen: ...}
    sampling_plan, model, training: ...      (in a plan of their own, or proposed from the data)

Instead of a query, `labels` names files of labels (`time`, `key`, `value`), or `table` and `outcome` a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graph_transformer.errors import TaskError
from graph_transformer.splits import Splits, parse_time, splits_from_dict
from graph_transformer.target import Kind, Target
from graph_transformer.task import TARGET_KEYS, mapping_of, target_from_dict
from temporal_graph.duration import DURATION_EXPECTED, parse_duration_us

PLAN_KEYS = ("sampling_plan", "model", "training", "ranking")
OPTION_KEYS = ("metric", "entity", "precision_at", "exclude_known_entities", "exclude_known_since")
SPLIT_FILES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """Labels given as Parquet files, one per split: rows of `table` by `key`, asked at `time`, answered by `value`.

    The label formed over `window_us` after its time, and is known from its end.
    """

    table: str
    kind: Kind
    key: tuple[str, ...]
    time: str
    value: str
    window_us: int
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Anchors:
    """The times at which entities are asked: from `first_us` to `last_us`, `step_us` apart; None is found from data.

    `before` names a table: users of a ranking are asked just before each of their rows of it.
    """

    first_us: int | None = None
    last_us: int | None = None
    step_us: int | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFile:
    """One task as written; exactly one of `query`, `target` and `label_files` is there."""

    name: str
    query: str | None = None
    target: Target | None = None
    label_files: LabelFiles | None = None
    anchors: Anchors = field(default_factory=Anchors)
    splits: Splits | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def load_task_file(path: Path, *, labels: Path | None = None) -> TaskFile:
    """Read a task file; files of labels lie in `labels`, else beside it.

    Raises:
        TaskError: a key is unknown or has a value that is none.
        OSError: it can not be read.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise TaskError(str(path), "a YAML mapping", str(error)) from error
    return task_file_from_dict(values, folder=labels if labels is not None else path.parent)


def task_file_from_dict(values: object, *, folder: Path) -> TaskFile:
    """Build from plain values; raises as `load_task_file`."""
    given = ("query", "labels", "table")
    known = ["version", "name", *given, "anchors", "splits", *TARGET_KEYS, *PLAN_KEYS, *OPTION_KEYS]
    mapping = mapping_of("task", values, known)
    if mapping.get("version") != 1:
        raise TaskError("version", "1", mapping.get("version"))
    name, query = mapping.get("name"), mapping.get("query")
    if not isinstance(name, str) or not name.isidentifier():
        raise TaskError("name", "a name of letters, digits and underscores", name)
    if sum(mapping.get(key) is not None for key in given) != 1:
        raise TaskError("query", "one of query, labels, and table with outcome", [k for k in given if mapping.get(k)])
    if query is not None and not isinstance(query, str):
        raise TaskError("query", "the text of a predictive query", query)
    labels, splits = mapping.get("labels"), mapping.get("splits")
    return TaskFile(
        name=name,
        query=query,
        target=target_from_dict(mapping) if mapping.get("table") is not None else None,
        label_files=None if labels is None else _label_files(labels, folder),
        anchors=_anchors(mapping.get("anchors", {})),
        splits=None if splits is None else splits_from_dict(splits, partial=labels is not None),
        plan={key: mapping[key] for key in PLAN_KEYS if key in mapping},
        options=_options(mapping),
    )


def _options(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by the names of `Task`."""
    options = {key: mapping[key] for key in OPTION_KEYS if key in mapping}
    if "exclude_known_since" in options:
        since = options.pop("exclude_known_since")
        options["exclude_known_since_us"] = parse_time("exclude_known_since", since)
    return options


def _label_files(values: object, folder: Path) -> LabelFiles:
    names = ["table", "kind", "key", "time", "value", "window", "files"]
    mapping = mapping_of("labels", values, names)
    for name in ("table", "time", "value"):
        if not isinstance(mapping.get(name), str):
            raise TaskError(f"labels.{name}", "a name", mapping.get(name))
    key = mapping.get("key")
    key = [key] if isinstance(key, str) else key
    if not isinstance(key, list) or not key or not all(isinstance(part, str) for part in key):
        raise TaskError("labels.key", "a column's name, or a list of them", mapping.get("key"))
    kinds = [Kind.BINARY, Kind.REGRESSION, Kind.MULTICLASS]
    if mapping.get("kind") not in list(kinds):
        raise TaskError("labels.kind", f"one of {', '.join(kinds)}", mapping.get("kind"))
    files = mapping_of("labels.files", mapping.get("files"), list(SPLIT_FILES))
    if "train" not in files:
        raise TaskError("labels.files.train", "a Parquet file", None)
    return LabelFiles(
        table=mapping["table"],
        kind=Kind(mapping["kind"]),
        key=tuple(key),
        time=mapping["time"],
        value=mapping["value"],
        window_us=_duration("labels.window", mapping.get("window")),
        files={split: folder / str(name) for split, name in files.items()},
    )


def _anchors(values: object) -> Anchors:
    mapping = mapping_of("anchors", values, ["first", "last", "step", "before"])
    times = {
        f"{name}_us": parse_time(f"anchors.{name}", mapping[name]) for name in ("first", "last") if name in mapping
    }
    step = {"step_us": _duration("anchors.step", mapping["step"])} if "step" in mapping else {}
    before = mapping.get("before")
    if before is not None and not isinstance(before, str):
        raise TaskError("anchors.before", "the name of a table", before)
    return Anchors(**times, **step, before=before)


def _duration(path: str, value: object) -> int:
    try:
        return parse_duration_us(str(value))
    except ValueError:
        raise TaskError(path, DURATION_EXPECTED, value) from None

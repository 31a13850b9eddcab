"""Labels that come as files (a key, a time, a value): read by DuckDB, keys resolved in the graph.

{split: file} ─► LabelTable of all of them, and the splits, which are the times of each file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.query.task_table import rows_of_keys
from graph_transformer.splits import NAMES, Interval, Splits
from graph_transformer.target import Kind, Target
from temporal_graph.errors import nearest_name

Int64 = NDArray[np.int64]

KINDS = (Kind.BINARY, Kind.REGRESSION, Kind.MULTICLASS)
"""What a column of values can be the labels of."""
_READERS = {
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
    ".csv": "read_csv",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}


@dataclass(frozen=True, slots=True)
class SplitLabels:
    """The labels of all files by time and row, the times of each, and how many named an entity the graph lacks."""

    labels: LabelTable
    splits: Splits
    unknown: int


def read_label_files(
    files: Mapping[str, Path],
    *,
    source: RowSource,
    table: str,
    task_name: str,
    key: Sequence[str],
    time: str,
    value: str,
    window_us: int,
    kind: Kind | None = None,
) -> SplitLabels:
    """Read labels of entities of `table` from Parquet, CSV or JSON files, one for each split.

    `key` names the columns of the entity's key, `time` the anchor, `value` the label, which is known `window_us` later.
    Rows without a value are left out. Without a `kind`: two classes if all values are 0 or 1 or booleans, classes if
    they are texts, else numbers.

    Raises:
        TaskError: a split or column that does not exist, no training labels, splits whose times overlap, or values that
            do not fit the kind.
        OSError: a file cannot be read.
    """
    unknown = [name for name in files if name not in NAMES]
    if unknown:
        raise TaskError(f"labels.files.{unknown[0]}", f"one of {', '.join(NAMES)}", unknown[0])
    if "train" not in files:
        raise TaskError("labels.files.train", "a file of labels to train on", None)
    parts = {name: _read(name, path, [*key, time, value]) for name, path in files.items()}
    values = np.concatenate([part[value] for part in parts.values()])
    kind = kind if kind is not None else kind_of(values)
    classes, label = _encoded(kind, values)
    entity = source.schema.table(table)
    if len(key) != len(entity.primary_key):
        names = ", ".join(part.name for part in entity.primary_key)
        raise TaskError("labels.key", f"a column for each part of the key of {table} ({names})", list(key))
    row = rows_of_keys(source, entity, [np.concatenate([part[name] for part in parts.values()]) for name in key])
    time_us = np.concatenate([part[time] for part in parts.values()]).astype("datetime64[us]").astype(np.int64)
    target = Target(kind, table, event_level=False, classes=classes, horizon_us=window_us, task_table=task_name)
    found = LabelTable(target, row, time_us, time_us + np.int64(window_us), label)
    order = np.lexsort((row, time_us))
    splits = _splits({name: part[time] for name, part in parts.items()})
    return SplitLabels(found.select(order[row[order] >= 0]), splits, int((row < 0).sum()))


def _read(split: str, path: Path, columns: list[str]) -> dict[str, NDArray[Any]]:
    import duckdb

    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if path.suffix not in _READERS:
        raise TaskError(f"labels.files.{split}", f"a file that ends in {', '.join(_READERS)}", str(path))
    with duckdb.connect() as database:
        try:
            database.execute("set timezone = 'UTC'")
            relation = getattr(database, _READERS[path.suffix])(str(path))
            for name in columns:
                if name not in relation.columns:
                    near = nearest_name(name, relation.columns)
                    hint = f" (did you mean {near}?)" if near is not None else ""
                    expected = f"a file with a column {name}{hint}"
                    raise TaskError(f"labels.files.{split}", expected, ", ".join(relation.columns))
            quoted = ['"' + name.replace('"', '""') + '"' for name in columns]
            time, value = quoted[-2:]
            wanted = ", ".join([*quoted[:-2], f"{time}::timestamp as {time}", value])
            complete = " and ".join(f"{name} is not null" for name in quoted)
            found = relation.filter(complete).select(wanted).fetchnumpy()
        except duckdb.Error as error:
            raise TaskError(f"labels.files.{split}", "a file of labels with times", f"{path}: {error}") from error
    # Nothing is null any more: what lies under the masks is whole.
    return {name: np.ma.getdata(array) for name, array in found.items()}


def kind_of(values: NDArray[Any]) -> Kind:
    """Return what kind of labels these values are."""
    if values.dtype.kind in "OU":
        return Kind.MULTICLASS
    return Kind.BINARY if np.isin(values, (0, 1)).all() else Kind.REGRESSION


def _encoded(kind: Kind, values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    if kind not in KINDS:
        raise TaskError("labels.kind", f"one of {', '.join(KINDS)}", kind.value)
    if kind is Kind.MULTICLASS:
        texts, place = np.unique(values.astype(str), return_inverse=True)
        return tuple(texts.tolist()), place.astype(np.float64)
    if values.dtype.kind not in "biuf":
        raise TaskError("labels.value", f"numbers for a {kind.value} target", str(values[:1].tolist()))
    label: NDArray[np.float64] = values.astype(np.float64)
    if kind is Kind.BINARY and not np.isin(label, (0, 1)).all():
        raise TaskError("labels.value", "0 and 1 for a binary target", float(label[~np.isin(label, (0, 1))][0]))
    return (), label


def _splits(times: Mapping[str, NDArray[Any]]) -> Splits:
    found: dict[str, Interval] = {}
    for name, values in times.items():
        if not len(values):
            raise TaskError(f"labels.files.{name}", "a file with labels", "none")
        time_us = values.astype("datetime64[us]").astype(np.int64)
        found[name] = Interval(int(time_us.min()), int(time_us.max()) + 1)
    order = [name for name in NAMES if name in found and name != "refit"]
    for earlier, later in pairwise(order):
        if found[later].start_us < found[earlier].end_us:
            raise TaskError(f"labels.files.{later}", f"times after those of {earlier}", "times that overlap")
    return Splits(**found)  # type: ignore[arg-type]  # each name is a split's

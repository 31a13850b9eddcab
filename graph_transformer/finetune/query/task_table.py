"""Past labels as rows of the graph: the schema with a task table, and its rows as an ordinary history file.

    LabelTable ─► write_labels(path) ─► the loader of history ─► rows of the task table, visible once each is known
    the file   ─► read_labels(path)  ─► LabelTable

A label of entity e at anchor t happened at t and is known when its window is over and all it rests on is known, so a
question sees it from then on, like every other row.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.target import Kind, Ranked, Target
from stream.privacy import HASHED_METADATA
from temporal_graph.schema import (
    Column,
    ColumnKind,
    KeyColumn,
    KeyType,
    KnownTime,
    Schema,
    Table,
    dump_schema,
    parse_schema,
)
from temporal_graph.schema import Link as SchemaLink

if TYPE_CHECKING:
    import pyarrow as pa

Int64 = NDArray[np.int64]

ANCHOR_TIME = "anchor_time"
ANCHOR_TIME_US = "anchor_time_us"
KNOWN_TIME = "known_time"
LABEL = "label"
_OWN_NAMES = (ANCHOR_TIME, ANCHOR_TIME_US, KNOWN_TIME, LABEL)
_METADATA = b"nowgraph.target"

_KIND_OF_LABEL = {
    Kind.BINARY: ColumnKind.BOOLEAN,
    Kind.MULTICLASS: ColumnKind.CATEGORICAL,
    Kind.MULTILABEL: ColumnKind.MULTICATEGORICAL,
    Kind.REGRESSION: ColumnKind.NUMERICAL,
    Kind.FORECAST: ColumnKind.NUMERICAL,
}


def task_schema(schema: Schema, target: Target) -> Schema:
    """Return the schema a task needs: with its task table, or with the column that is predicted as the outcome.

    Raises:
        TaskError: the table's name is taken, or the entity has no key that a link could hold.
    """
    if target.task_table is not None:
        return task_table_schema(schema, target.task_table, target)
    if target.column is None:
        return schema
    column_name = target.column

    def marked(table: Table) -> Table:
        columns = tuple(replace(column, outcome=column.name == column_name) for column in table.columns)
        return replace(table, columns=columns)

    tables = tuple(marked(table) if table.name == target.table else table for table in schema.tables)
    return replace(schema, tables=tables)


def task_table_schema(schema: Schema, name: str, target: Target) -> Schema:
    """Return the schema with one more table, `name`: a row for each past label, linked to its entity.

    Raises:
        TaskError: the name is taken, or the entity has no key that a link could hold.
    """
    if any(table.name == name for table in schema.tables):
        raise TaskError("name", "a name that no table of the schema has", name)
    entity = schema.table(target.table)
    if not entity.primary_key:
        raise TaskError("task_table", f"an entity with a primary key, which {entity.name} has not", name)
    if target.kind not in _KIND_OF_LABEL:
        raise TaskError("task_table", "labels that fit one column", target.kind.value)
    names = key_names(entity)
    kind = _KIND_OF_LABEL[target.kind]
    # A list is no outcome of a schema; nobody is asked about a row of this table, so nothing has to be hidden.
    is_outcome = kind is not ColumnKind.MULTICATEGORICAL
    labels = tuple(Column(each, kind, outcome=is_outcome and each == LABEL) for each in label_names(target))
    keys = tuple(KeyColumn(own, part.type) for own, part in zip(names, entity.primary_key, strict=True))
    link = SchemaLink("+".join(names), names, name, entity.name, tuple(part.name for part in entity.primary_key))
    table = Table(
        name=name,
        primary_key=(*keys, KeyColumn(ANCHOR_TIME_US, KeyType.INTEGER)),
        time_column=ANCHOR_TIME,
        known_time=KnownTime("column", KNOWN_TIME),
        columns=labels,
        links=(link,),
    )
    # Through its text, so that whoever reads the written schema has the same one, privacy of keys included.
    return parse_schema(dump_schema(replace(schema, tables=(*schema.tables, table))))


def key_names(entity: Table) -> tuple[str, ...]:
    """Return the columns of a label file that hold the entity's key; the table's name stands before one labels need."""
    return tuple(
        f"{entity.name}_{part.name}" if part.name.startswith(_OWN_NAMES) else part.name for part in entity.primary_key
    )


def label_names(target: Target) -> tuple[str, ...]:
    """Return the columns of a label file that hold labels: `label`, and of a forecast `label_2`, `label_3`, ... ."""
    return (LABEL, *(f"{LABEL}_{step + 1}" for step in range(1, target.steps)))


def write_labels(labels: LabelTable, path: Path, source: RowSource) -> None:
    """Write the labels as a Parquet file that the loader of history takes for rows of the task table.

    A label that changed after its windows were over has two rows: as it stood then, and as it finally does.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow.parquet as pq

    rows = label_rows(labels, source)
    if labels.first is not None:
        import pyarrow as pa

        # Two versions of one row: in order of the time they are known.
        first = label_rows(labels.first, source).cast(rows.schema)
        rows = pa.concat_tables([first, rows]).sort_by([(ANCHOR_TIME_US, "ascending"), (KNOWN_TIME, "ascending")])
    pq.write_table(rows, path, compression="zstd")


def label_rows(labels: LabelTable, source: RowSource) -> pa.Table:
    """Return the labels as columns: the entity's key, the anchor as a time and as a number, known time, label."""
    import pyarrow as pa

    target, entity = labels.target, source.schema.table(labels.target.table)
    columns: dict[str, Any] = {}
    rows, place = np.unique(labels.row, return_inverse=True)
    if entity.primary_key:
        keys = [key if isinstance(key, tuple) else (key,) for key in source.keys(entity.name, rows)]
        for part, name in enumerate(key_names(entity)):
            columns[name] = pa.array([key[part] for key in keys]).take(pa.array(place))
    else:
        columns["row"] = pa.array(labels.row)
    columns[ANCHOR_TIME] = _times(labels.anchor_time_us)
    columns[ANCHOR_TIME_US] = pa.array(labels.anchor_time_us)
    columns[KNOWN_TIME] = _times(labels.known_time_us)
    columns |= _label_columns(labels, source)
    # Keys as the graph has them: of a private one the hash, which loading the file must not hash again.
    hashed = HASHED_METADATA if entity.private_keys else {}
    metadata = {**hashed, _METADATA: json.dumps(asdict(target) | {"item_table": labels.item_table})}
    return pa.table(columns).replace_schema_metadata(metadata)


def _times(time_us: Int64) -> pa.Array:
    import pyarrow as pa

    return pa.array(time_us).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))


def _label_columns(labels: LabelTable, source: RowSource) -> dict[str, Any]:
    import pyarrow as pa

    target, label = labels.target, labels.label
    if target.kind is Kind.BINARY:
        return {LABEL: pa.array(label > 0.5)}
    if target.kind is Kind.MULTICLASS:
        return {LABEL: pa.array(target.classes, pa.string()).take(pa.array(label.astype(np.int64)))}
    if target.kind is Kind.MULTILABEL:
        counts, (_, chosen) = label.sum(axis=1), np.nonzero(label)
        offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        values = pa.array(target.classes, pa.string()).take(pa.array(chosen))
        return {LABEL: pa.ListArray.from_arrays(pa.array(offset), values)}
    if labels.item_table is not None and labels.item_offset is not None and labels.item is not None:
        rows, place = np.unique(labels.item, return_inverse=True)
        keys = pa.array([key[0] if isinstance(key, tuple) else key for key in source.keys(labels.item_table, rows)])
        return {
            LABEL: pa.ListArray.from_arrays(pa.array(labels.item_offset.astype(np.int32)), keys.take(pa.array(place)))
        }
    if target.kind is Kind.FORECAST:
        return {name: pa.array(label[:, step]) for step, name in enumerate(label_names(target))}
    return {LABEL: pa.array(label)}


def read_labels(path: Path, source: RowSource) -> LabelTable:
    """Read a file that `write_labels` wrote; labels of entities that the graph does not have are left out.

    Raises:
        TaskError: the file is no such file.
        OSError: it cannot be read.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    written = (table.schema.metadata or {}).get(_METADATA)
    if written is None:
        raise TaskError("labels", "a file of labels that nowgraph wrote", str(path))
    values = json.loads(written)
    item_table = values.pop("item_table")
    ranked = values.get("ranked")  # not in files of before there were rankings
    target = Target(
        **values
        | {
            "kind": Kind(values["kind"]),
            "classes": tuple(values["classes"]),
            "ranked": None if ranked is None else Ranked(**ranked),
        }
    )
    entity = source.schema.table(target.table)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    if entity.primary_key:
        parts = [columns[name].to_numpy(zero_copy_only=False) for name in key_names(entity)]
        row = rows_of_keys(source, entity, parts)
    else:
        row = columns["row"].to_numpy()
    offset = item = None
    if item_table is not None:
        lists = columns[LABEL]
        offset = lists.offsets.to_numpy().astype(np.int64)
        item = rows_of_keys(source, source.schema.table(item_table), [lists.flatten().to_numpy(zero_copy_only=False)])
    found = LabelTable(
        target,
        row,
        columns[ANCHOR_TIME_US].to_numpy(),
        columns[KNOWN_TIME].cast("int64").to_numpy(),
        _read_label(target, columns),
        offset,
        item,
        item_table,
    )
    found = found if (row >= 0).all() else found.select(row >= 0)
    return found if item_table is not None else _with_first(found)


def _with_first(found: LabelTable) -> LabelTable:
    """Tell the labels as they stood at first from those that finally stand: of two of one row and anchor the later."""
    order = np.lexsort((found.known_time_us, found.row, found.anchor_time_us))
    row, anchor = found.row[order], found.anchor_time_us[order]
    last = np.append((row[1:] != row[:-1]) | (anchor[1:] != anchor[:-1]), True)[: len(order)]
    final = found.select(order[last])
    return final if last.all() else replace(final, first=found.select(order[~last]))


def rows_of_keys(source: RowSource, table: Table, parts: list[NDArray[Any]]) -> Int64:
    """Return int64 [n]: the row of each key, given part by part; -1 for one that the graph does not have."""
    integer = [part.type is KeyType.INTEGER for part in table.primary_key]
    if integer == [True]:
        return source.row_index(table.name, np.ascontiguousarray(parts[0], dtype=np.int64))
    lists = [part.tolist() for part in parts]
    keys: list[Any] = lists[0] if len(lists) == 1 else list(zip(*lists, strict=True))
    return source.row_index(table.name, keys)


def _read_label(target: Target, columns: dict[str, Any]) -> NDArray[np.float64]:
    label = columns[LABEL]
    if target.kind is Kind.FORECAST:
        steps: NDArray[np.float64] = np.stack([columns[name].to_numpy() for name in label_names(target)], axis=1)
        return steps
    place = {name: index for index, name in enumerate(target.classes)}
    if target.kind is Kind.MULTICLASS:
        return np.fromiter((place[text] for text in label.to_pylist()), dtype=np.float64, count=len(label))
    if target.kind is Kind.MULTILABEL:
        several = np.zeros((len(label), len(place)))
        counts = np.diff(label.offsets.to_numpy())
        chosen = np.array([place[text] for text in label.flatten().to_pylist()], dtype=np.int64)
        several[np.repeat(np.arange(len(label)), counts), chosen] = 1.0
        return several
    if target.kind is Kind.RANKING:
        lengths: NDArray[np.float64] = np.diff(label.offsets.to_numpy()).astype(np.float64)
        return lengths
    numbers: NDArray[np.float64] = label.cast("float64").to_numpy(zero_copy_only=False)
    return numbers

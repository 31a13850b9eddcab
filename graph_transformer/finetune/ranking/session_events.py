"""Sessions of past questions as the events a request would bring: rows of the graph, as they first were, on the wire.

rows of the interactions ─► columns (key, time, cells, keys of links) ─► RowEvents ─► a tuple for each question
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.statistics import ELEMENT_SEPARATOR
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.questions import Sessions
from graph_transformer.target import Ranked
from stream.arrow_encode import ArrowEncoder
from temporal_graph.schema import ColumnKind, Source
from temporal_graph.schema import Table as SchemaTable
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.versions import TableVersions

if TYPE_CHECKING:
    import pyarrow as pa

Int64 = NDArray[np.int64]


def session_events(source: RowSource, ranked: Ranked, sessions: Sessions) -> tuple[tuple[bytes, ...], ...]:
    """Return the serialized RowEvents of each question's session, oldest first; private keys are hashes already."""
    rows, place = np.unique(sessions.interaction, return_inverse=True)
    events: list[bytes] = []
    if len(rows):
        versions = source.versions(ranked.interactions)
        first = np.searchsorted(versions.row, rows)
        schema, table = source.schema, source.schema.table(ranked.interactions)
        encoder = ArrowEncoder(schema, Source(table.name, table.name, "json"), hashed=True)
        encoded = encoder.encode(_batch(source, table, versions, first))
        assert not encoded.refused
        events = encoded.events
    ends = sessions.offset.tolist()
    return tuple(tuple(events[at] for at in place[low:high].tolist()) for low, high in pairwise(ends))


def _batch(source: RowSource, table: SchemaTable, versions: TableVersions, at: Int64) -> pa.RecordBatch:
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    if table.primary_key:
        _put_keys(columns, [part.name for part in table.primary_key], source.keys(table.name, versions.row[at]))
    assert table.time_column is not None
    columns[table.time_column] = _times(versions.event_time_us[at])
    if table.known_time.column is not None:
        columns[table.known_time.column] = _times(versions.valid_from_us[at])
    for link in table.links:
        parent = versions.parents[at, versions.link_names.index(link.name)]
        _put_keys(columns, list(link.columns), source.keys(link.parent, parent))
    for column in table.columns:
        columns[column.name] = _cells(source, versions, column.name, column.kind, at)
    return pa.record_batch(columns)


def _put_keys(columns: dict[str, Any], names: list[str], keys: list[Any]) -> None:
    """Add a column for each part of keys, null where there is no key."""
    import pyarrow as pa

    parts = [(None,) * len(names) if key is None else key if isinstance(key, tuple) else (key,) for key in keys]
    for name, values in zip(names, zip(*parts, strict=True), strict=True):
        columns[name] = pa.array(values)


def _cells(source: RowSource, versions: TableVersions, name: str, kind: ColumnKind, at: Int64) -> pa.Array:
    import pyarrow as pa

    if kind is ColumnKind.NUMERICAL:
        numbers = versions.numerical[at, versions.numerical_names.index(name)]
        return pa.array(numbers, mask=np.isnan(numbers))
    if kind is ColumnKind.BOOLEAN:
        flags = versions.boolean[at, versions.boolean_names.index(name)]
        return pa.array(flags == 1, mask=flags > 1)
    if kind is ColumnKind.TIMESTAMP:
        return _times(versions.timestamp[at, versions.timestamp_names.index(name)])
    if kind is ColumnKind.EMBEDDING:
        sizes = [column.dim for column in source.schema.table(versions.table).columns if column.dim]
        place = versions.embedding_names.index(name)
        start = sum(sizes[:place])
        vectors = versions.embedding[at, start : start + sizes[place]]
        return pa.array([None if np.isnan(each[0]) else each.tolist() for each in vectors], pa.list_(pa.float32()))
    codes = versions.coded[at, versions.coded_names.index(name)]
    texts = source.strings(versions.table, name, codes)
    if kind is ColumnKind.MULTICATEGORICAL:
        lists = [None if text is None else [part for part in text.split(ELEMENT_SEPARATOR) if part] for text in texts]
        return pa.array(lists, pa.list_(pa.string()))
    return pa.array(texts, pa.string())


def _times(time_us: Int64) -> pa.Array:
    import pyarrow as pa

    return pa.array(time_us, mask=time_us == ALWAYS_US).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))

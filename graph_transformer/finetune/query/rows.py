"""Where the rows of a training table come from: the graph's own states over time, as values by name.

view.versions(table) ─► States ─► Values of a column, per state or as of a time
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.bound import BoundColumn, Role
from graph_transformer.finetune.query.values import Values
from temporal_graph.schema import ColumnKind, KeyType, Schema
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.versions import TableVersions

Int64 = NDArray[np.int64]


class RowSource(Protocol):
    """What labels are made from; `GraphView` is one."""

    @property
    def schema(self) -> Schema:
        """The tables."""

    def versions(self, table: str) -> TableVersions:
        """Return the table as it was at every moment."""

    def row_count(self, table: str) -> int:
        """Return the number of rows, bare ones included."""

    def row_index(self, table: str, keys: Sequence[Any] | Int64) -> Int64:
        """Return the row of each key, -1 for none."""

    def keys(self, table: str, rows: Int64) -> list[Any]:
        """Return the key of each row."""

    def strings(self, table: str, column: str, codes: NDArray[np.int32]) -> list[str | None]:
        """Return the string of each code."""

    def dictionary_size(self, table: str, column: str) -> int:
        """Return the number of codes of a column."""


class States:
    """The states of one table, with the values of its columns by name; each is made once."""

    def __init__(self, source: RowSource, table: str) -> None:
        self.source, self.table = source, table
        self.versions = source.versions(table)
        self._values: dict[str, Values] = {}

    def __len__(self) -> int:
        return len(self.versions.row)

    def values(self, column: BoundColumn) -> Values:
        """Return the column's value in every state; a whole row's is never null."""
        if column.name not in self._values:
            self._values[column.name] = self._made(column)
        return self._values[column.name]

    def as_of(self, time_us: int, rows: int) -> Int64:
        """Return int64 [rows]: the state of each row that holds at a time, -1 for none."""
        found = np.full(rows, -1, dtype=np.int64)
        holds = np.flatnonzero((self.versions.valid_from_us <= time_us) & (time_us < self.versions.valid_to_us))
        found[self.versions.row[holds]] = holds
        return found

    def last(self, known_by_us: int | None) -> Int64:
        """Return int64: the last state of each row known by a time (None: ever), by row."""
        row, known = self.versions.row, np.arange(len(self))
        if known_by_us is not None:
            known = np.flatnonzero(self.versions.valid_from_us <= known_by_us)
        ends = np.flatnonzero(np.diff(row[known], append=-1))
        found: Int64 = known[ends]
        return found

    def _made(self, column: BoundColumn) -> Values:
        versions, none = self.versions, np.zeros(len(self), dtype=bool)
        if column.role is Role.STAR:
            return Values(np.ones(len(self)), none)
        if column.role is Role.TIME:
            return Values(versions.event_time_us, versions.event_time_us == ALWAYS_US)
        if column.role is Role.LINK:
            assert column.link is not None
            parent = versions.parents[:, versions.link_names.index(column.name)]
            return Values(parent, parent < 0, parent=column.link.parent)
        if column.role is Role.KEY:
            return self._keys(column)
        return self._cells(column)

    def _cells(self, column: BoundColumn) -> Values:
        versions, kind, name = self.versions, column.kind, column.name
        if kind is ColumnKind.NUMERICAL:
            numbers = versions.numerical[:, versions.numerical_names.index(name)]
            return Values(numbers, np.isnan(numbers))
        if kind is ColumnKind.BOOLEAN:
            flags = versions.boolean[:, versions.boolean_names.index(name)]
            return Values(flags.astype(np.float64), flags > 1)
        if kind is ColumnKind.TIMESTAMP:
            times = versions.timestamp[:, versions.timestamp_names.index(name)]
            return Values(times, times == ALWAYS_US)
        if kind is ColumnKind.EMBEDDING:
            dims = {each.name: each.dim for each in self.source.schema.table(self.table).columns}
            start = sum(dims[each] for each in versions.embedding_names[: versions.embedding_names.index(name)])
            missing = np.isnan(versions.embedding[:, start])
            return Values(np.zeros(len(self)), missing)
        codes = versions.coded[:, versions.coded_names.index(name)]
        size = self.source.dictionary_size(self.table, name)
        texts = self.source.strings(self.table, name, np.arange(size, dtype=np.int32))
        return Values(codes, codes <= 0, texts=texts, is_set=kind is ColumnKind.MULTICATEGORICAL)

    def _keys(self, column: BoundColumn) -> Values:
        rows, place = np.unique(self.versions.row, return_inverse=True)
        parts = [key[column.key_part] if isinstance(key, tuple) else key for key in self.source.keys(self.table, rows)]
        none = np.zeros(len(self), dtype=bool)
        if column.key_type is KeyType.INTEGER:
            return Values(np.array(parts, dtype=np.int64)[place], none)
        return Values(place, none, texts=parts)

"""How many bytes a graph will take, before there is one: a schema and counts in, the arena's parts out.

schema ─► bytes of a record ┐
rows, changes, strings ─────┴─► records, keys, lists, versions, strings ─► GraphBytes

A record's bytes are those of `native/layout.hpp`, exactly. A list moves to a larger block each time it is full, so
what lists take, and what they leave idle, depends on how children spread over parents: exponentially around their mean,
as in data with many quiet and a few busy ones, or evenly, as generators draw them. Evenly is the dearer: all lists
outgrow a size at the same time, and nobody takes the blocks that they leave.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from temporal_graph.errors import TemporalGraphError
from temporal_graph.schema import Column, ColumnKind, KeyType, Schema, Table

CHUNK_ROWS: Final = 8_192
"""Records and keys are taken for so many rows at once."""
ROWS_MAX: Final = 2**32 - 2
"""Of one table in one arena: rows are numbered by 32 bits."""
ARENA_BYTES_MAX: Final = 2**36 * 32
"""Blocks of lists are found by 36 bits of units of 32 bytes."""
VERSION_BYTES_MAX: Final = (2**31 - 1) * 16
"""Of all tables together: versions are found by 31 bits of units of 16 bytes."""
FIXED_BYTES: Final = 1_200_000
"""Headers, and the part of a slab of blocks that is not given out yet."""
TABLE_BYTES: Final = 25_000
"""Of a table without rows: its header, its map's shards, its first directories."""

_CELL_BYTES: Final = {
    ColumnKind.NUMERICAL: 8,
    ColumnKind.TIMESTAMP: 8,
    ColumnKind.CATEGORICAL: 4,
    ColumnKind.MULTICATEGORICAL: 4,
    ColumnKind.TEXT: 4,
    ColumnKind.BOOLEAN: 1,
}
_RECORD_MIN: Final = 32
_CLOCKS_AND_HEAD: Final = 20
_ENTRY: Final = 8
_HUB_ENTRIES: Final = 1_024
_HUB_BLOCK: Final = 16
_MAP_SHARDS: Final = 1_024
_SLOT: Final = 8
_DENSE_SLOT: Final = 4
_VERSION: Final = 40
_VERSION_CELL: Final = 4
_VERSION_UNIT: Final = 16
_STRING_HEAD: Final = 4
_CODE: Final = 8
_QUANTILES: Final = 2_048
_GROWTH_STEPS: Final = 96


class CapacityError(TemporalGraphError):
    """Counts that no arena can hold, or that are of nothing in the schema."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there will be.

    rows: of each table, by name. changes: of its rows that come later, such as outcomes. strings: distinct values of a
    column, by `table.column`. text_bytes: of a key that is text, and of such a string, on average. even: whether all
    parents have about as many children.
    """

    rows: Mapping[str, int]
    changes: Mapping[str, int] = field(default_factory=dict)
    strings: Mapping[str, int] = field(default_factory=dict)
    text_bytes: int = 16
    even: bool = False


@dataclass(frozen=True, slots=True)
class TableBytes:
    """The bytes of one table; lists are those in which its rows are children, idle the blocks that these have outgrown.

    `record_bytes` is of one row.
    """

    name: str
    rows: int
    record_bytes: int
    records: int
    keys: int
    lists: int
    idle: int
    versions: int
    strings: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.records + self.keys + self.lists + self.idle + self.versions + self.strings


@dataclass(frozen=True, slots=True)
class GraphBytes:
    """The bytes of a graph: its tables, and headers."""

    tables: tuple[TableBytes, ...]
    headers: int

    @property
    def total(self) -> int:
        """What the arena must hold."""
        return self.headers + sum(table.total for table in self.tables)


def graph_bytes(schema: Schema, counts: Counts) -> GraphBytes:
    """Return what a graph of these counts takes in an arena; integer keys are taken for counters.

    Raises:
        CapacityError: a count is of no table or column, is missing for a table, or is more than an arena numbers.
    """
    _check(schema, counts)
    tables = tuple(_table_bytes(schema, table, counts) for table in schema.tables)
    found = GraphBytes(tables, headers=FIXED_BYTES + len(tables) * TABLE_BYTES)
    for what, taken, most in (
        ("the arena", found.total, ARENA_BYTES_MAX),
        ("changes", sum(table.versions for table in tables), VERSION_BYTES_MAX),
    ):
        if taken > most:
            raise CapacityError(f"{taken:,} bytes of {what}; one arena holds {most:,}: see docs/SCALING.md")
    return found


def record_bytes(schema: Schema, table: Table) -> int:
    """Return the bytes of a row's record: list words, both clocks, the versions' head, parents and cells."""
    words = sum(link.parent == table.name for link in schema.links)
    cells = sum(_cell_bytes(column) for column in table.columns)
    taken = 8 * words + _CLOCKS_AND_HEAD + 4 * len(table.links) + cells
    return max(_RECORD_MIN, _up(taken, 8 if words else 4))


def list_bytes(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bytes of lists with so many entries, int64 [N] at least 1: one block, of a hub full blocks."""
    blocks = -(-count // _HUB_ENTRIES)
    directory = _HUB_BLOCK * np.maximum(4, 1 << np.ceil(np.log2(blocks)).astype(np.int64))
    hub = blocks * _HUB_ENTRIES * _ENTRY + directory
    sized: NDArray[np.int64] = np.where(count <= _HUB_ENTRIES, _ENTRY * _block_entries(count), hub)
    return sized


def _block_entries(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """The entries that a block for so many has room for: 4, 8, 12, 16, 24, 32, 48 and so on."""
    power = 1 << np.maximum(np.ceil(np.log2(count)).astype(np.int64), 2)
    middle = power // 2 + power // 4
    return np.where((power > 8) & (count <= middle), middle, power)


def _table_bytes(schema: Schema, table: Table, counts: Counts) -> TableBytes:
    rows, record = counts.rows[table.name], record_bytes(schema, table)
    room = _up(rows, CHUNK_ROWS)
    lists = [_link_bytes(rows, counts.rows[link.parent], even=counts.even) for link in table.links]
    return TableBytes(
        name=table.name,
        rows=rows,
        record_bytes=record,
        records=room * record,
        keys=room * 8 + _key_bytes(table, rows, counts.text_bytes),
        lists=sum(used for used, _ in lists),
        idle=sum(idle for _, idle in lists),
        versions=counts.changes.get(table.name, 0) * _version_bytes(table),
        strings=sum(
            _dictionary_bytes(counts.strings.get(f"{table.name}.{column.name}", 0), counts.text_bytes)
            for column in table.columns
        ),
    )


def _key_bytes(table: Table, rows: int, text_bytes: int) -> int:
    """What finds a row by its key: a page's slot for a counter; else a map's slot and the key's own bytes."""
    if not table.primary_key:
        return _map_bytes(rows) + rows * _up(_STRING_HEAD + text_bytes, 4)
    if len(table.primary_key) == 1 and table.primary_key[0].type is KeyType.INTEGER:
        return rows * _DENSE_SLOT
    return _map_bytes(rows) + rows * _up(_STRING_HEAD + len(table.primary_key) * text_bytes, 4)


def _map_bytes(items: int) -> int:
    """A map's shards double when they are half full."""
    if items == 0:
        return 0
    slots = 2 * max(2.0, items / _MAP_SHARDS)
    return _MAP_SHARDS * _SLOT * (1 << math.ceil(math.log2(slots)))


def _dictionary_bytes(strings: int, text_bytes: int) -> int:
    return _map_bytes(strings) + strings * (_CODE + _up(_STRING_HEAD + text_bytes, 4))


def _link_bytes(children: int, parents: int, *, even: bool) -> tuple[int, int]:
    """The lists of one link and what they leave idle.

    Blocks are used again by lists that need their size, so of each size there are as many as were ever needed at once
    while the lists grew.
    """
    if children == 0 or parents == 0:
        return 0, 0
    mean = children / parents
    most: dict[int, int] = {}
    for step in np.geomspace(min(0.5, mean), mean, _GROWTH_STEPS):
        count = _degrees(float(step), even=even)
        sizes, lists = np.unique(_block_entries(count[count <= _HUB_ENTRIES]), return_counts=True)
        now = dict(zip(sizes.tolist(), lists.tolist(), strict=True))
        now[_HUB_ENTRIES] = now.get(_HUB_ENTRIES, 0) + int(-(-count[count > _HUB_ENTRIES] // _HUB_ENTRIES).sum())
        most = {size: max(most.get(size, 0), now.get(size, 0)) for size in {*most, *now}}
    idle = _ENTRY * sum(size * (most[size] - now.get(size, 0)) for size in most)
    share = children / int(count.sum())
    return round(share * float(list_bytes(count).sum())), round(share * idle)


def _degrees(mean: float, *, even: bool) -> NDArray[np.int64]:
    """How many children parents have that have any, int64: quantiles of a Poisson or an exponential distribution."""
    quantile = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    if even:
        normal = np.array([NormalDist().inv_cdf(each) for each in quantile])
        count = np.rint(mean + math.sqrt(mean) * normal).astype(np.int64)
    else:
        count = np.rint(-np.log1p(-quantile) * mean).astype(np.int64)
    return count[count > 0]


def _version_bytes(table: Table) -> int:
    """A change sets one cell: the outcome's, else a number's."""
    cell = 8 if table.outcome is None else _cell_bytes(table.outcome)
    return _up(_VERSION + _VERSION_CELL + cell, _VERSION_UNIT)


def _cell_bytes(column: Column) -> int:
    return 4 * column.dim if column.kind is ColumnKind.EMBEDDING else _CELL_BYTES[column.kind]


def _check(schema: Schema, counts: Counts) -> None:
    names = [table.name for table in schema.tables]
    for name in (*counts.rows, *counts.changes):
        if name not in names:
            raise CapacityError(f"{name}: the schema has no such table; it has {', '.join(names)}")
    columns = [f"{table.name}.{column.name}" for table in schema.tables for column in table.columns]
    for name in counts.strings:
        if name not in columns:
            raise CapacityError(f"{name}: the schema has no such column")
    for name in names:
        if name not in counts.rows:
            raise CapacityError(f"{name}: how many rows will it have?")
        if counts.rows[name] > ROWS_MAX:
            raise CapacityError(
                f"{name}: {counts.rows[name]:,} rows; an arena numbers {ROWS_MAX:,} of a table: see docs/SCALING.md"
            )


def _up(count: int, step: int) -> int:
    return -(-count // step) * step

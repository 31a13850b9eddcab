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
from temporal_graph.schema import Column, ColumnKind, KeyType, Link, Schema, Table

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
_SLOT_NUMBER: Final = 4
_DISK_CELLS: Final = 16
_VERSION_UNIT: Final = 16
_STRING_HEAD: Final = 4
_CODE: Final = 8
_QUANTILES: Final = 2_048
_GROWTH_STEPS: Final = 128
_GROWTH_FROM: Final = 1e-4
_NORMAL: Final = np.array([NormalDist().inv_cdf((each + 0.5) / _QUANTILES) for each in range(_QUANTILES)])


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
    """The bytes of one table; lists are those in which its rows are children. `record_bytes` is of one row.

    `disk` is what of it lies in the columns' file, and no part of the arena.
    """

    name: str
    rows: int
    record_bytes: int
    records: int
    keys: int
    lists: int
    versions: int
    strings: int
    disk: int

    @property
    def total(self) -> int:
        """Of the arena."""
        return self.records + self.keys + self.lists + self.versions + self.strings


@dataclass(frozen=True, slots=True)
class GraphBytes:
    """The bytes of a graph: its tables, `idle` blocks that lists have outgrown, and headers."""

    tables: tuple[TableBytes, ...]
    idle: int
    headers: int

    @property
    def total(self) -> int:
        """What the arena must hold."""
        return self.headers + self.idle + sum(table.total for table in self.tables)


def graph_bytes(schema: Schema, counts: Counts) -> GraphBytes:
    """Return what a graph of these counts takes in an arena; integer keys are taken for counters.

    Raises:
        CapacityError: a count is of no table or column, is missing for a table, or is more than an arena numbers.
    """
    _check(schema, counts)
    tables = tuple(_table_bytes(schema, table, counts) for table in schema.tables)
    idle = _idle_bytes([Spread.of(link, counts) for link in schema.links])
    found = GraphBytes(tables, idle=idle, headers=FIXED_BYTES + len(tables) * TABLE_BYTES)
    for what, taken, most in (
        ("the arena", found.total, ARENA_BYTES_MAX),
        ("changes", sum(table.versions for table in tables), VERSION_BYTES_MAX),
    ):
        if taken > most:
            raise CapacityError(f"{taken:,} bytes of {what}; one arena holds {most:,}: see docs/SCALING.md")
    return found


def record_bytes(schema: Schema, table: Table) -> int:
    """Return the bytes of a row's record: list words, both clocks, the versions' head, parents, cells or their slot."""
    words = sum(link.parent == table.name for link in schema.links)
    cells = _SLOT_NUMBER if table.on_disk else _cells_bytes(table)
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
    room, changes = _up(rows, CHUNK_ROWS), counts.changes.get(table.name, 0)
    return TableBytes(
        name=table.name,
        rows=rows,
        record_bytes=record,
        records=room * record,
        keys=room * 8 + _key_bytes(table, rows, counts.text_bytes),
        lists=sum(Spread.of(link, counts).bytes() for link in table.links),
        versions=changes * _version_bytes(table),
        strings=sum(
            _dictionary_bytes(counts.strings.get(f"{table.name}.{column.name}", 0), counts.text_bytes)
            for column in table.columns
        ),
        disk=room * _up(_cells_bytes(table), 4) + changes * _changed_bytes(table) if table.on_disk else 0,
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


@dataclass(frozen=True, slots=True)
class Spread:
    """How the children of one link spread over its parents."""

    children: int
    parents: int
    even: bool

    @classmethod
    def of(cls, link: Link, counts: Counts) -> Spread:
        """Every row has the link, and every parent is one that rows may name."""
        return cls(counts.rows[link.child], counts.rows[link.parent], counts.even)

    def bytes(self) -> int:
        """Of the lists as they are in the end."""
        count = self.lists(1.0)
        return round(self.children * int(list_bytes(count).sum()) / int(count.sum())) if len(count) else 0

    def blocks(self, share: float) -> dict[int, float]:
        """How many blocks of each size the lists are in once this share of the children has come."""
        count = self.lists(share)
        sizes, lists = np.unique(_block_entries(count[count <= _HUB_ENTRIES]), return_counts=True)
        found = dict(zip(sizes.tolist(), lists.tolist(), strict=True))
        full = int(-(-count[count > _HUB_ENTRIES] // _HUB_ENTRIES).sum())
        found[_HUB_ENTRIES] = found.get(_HUB_ENTRIES, 0) + full
        return {size: each * self.parents / _QUANTILES for size, each in found.items()}

    def lists(self, share: float) -> NDArray[np.int64]:
        """Entries of the lists that have any, int64: quantiles of a Poisson or an exponential distribution."""
        if self.children == 0 or self.parents == 0:
            return np.empty(0, np.int64)
        mean = share * self.children / self.parents
        quantile = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        count = mean + math.sqrt(mean) * _NORMAL if self.even else -np.log1p(-quantile) * mean
        entries: NDArray[np.int64] = np.rint(count).astype(np.int64)
        return entries[entries > 0]


def _idle_bytes(spreads: list[Spread]) -> int:
    """Blocks are used again by lists that need their size: of each there are as many as were ever needed at once."""
    most: dict[int, float] = {}
    now: dict[int, float] = {}
    for share in np.geomspace(_GROWTH_FROM, 1.0, _GROWTH_STEPS):
        now = {}
        for spread in spreads:
            for size, count in spread.blocks(float(share)).items():
                now[size] = now.get(size, 0) + count
        most = {size: max(most.get(size, 0), now.get(size, 0)) for size in {*most, *now}}
    return round(_ENTRY * sum(size * (count - now.get(size, 0)) for size, count in most.items()))


def _version_bytes(table: Table) -> int:
    """A change's record, and its cell or where that is on disk."""
    return _up(_VERSION + (_DISK_CELLS if table.on_disk else _changed_bytes(table)), _VERSION_UNIT)


def _changed_bytes(table: Table) -> int:
    """A change sets one cell: the outcome's, else a number's."""
    return _VERSION_CELL + (8 if table.outcome is None else _cell_bytes(table.outcome))


def _cells_bytes(table: Table) -> int:
    return sum(_cell_bytes(column) for column in table.columns)


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

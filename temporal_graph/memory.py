"""Where the graph's bytes are, counted by the allocator that gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TableMemory:
    """The bytes of one table. Topology is both clocks, parents and list words; cells are the inline columns in memory,
    `disk_bytes` those on disk.
    """

    name: str
    rows: int
    topology_bytes: int
    key_bytes: int
    key_map_bytes: int
    cell_bytes: int
    disk_bytes: int
    dictionary_bytes: int
    version_head_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The bytes of the arena. `adjacency_bytes` are the blocks of children lists in use, `idle_bytes` blocks that were
    replaced and wait for readers or reuse, `version_bytes` changes of rows. `columns_bytes` are no part of it: they are
    what is used of the columns' file on disk.
    """

    arena_bytes: int
    used_bytes: int
    idle_bytes: int
    adjacency_entries: int
    adjacency_bytes: int
    late_entries: int
    versions: int
    version_bytes: int
    columns_bytes: int
    tables: tuple[TableMemory, ...]


def memory_of(native: Mapping[str, Any]) -> Memory:
    """Return the native account as a value."""
    parts = {name: value for name, value in native.items() if name != "tables"}
    return Memory(**parts, tables=tuple(TableMemory(**table) for table in native["tables"]))

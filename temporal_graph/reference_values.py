"""Cells and keys of the plain twin: one canonical value for each thing said, and what orders equal times.

cell as given ─► canonical_cell ─► value kept, compared and dumped
(operation, cells) ─► content_bytes ─► identity of an event, and the tie-break of the fold
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import cast

from temporal_graph.schema_types import ColumnKind, Table
from temporal_graph.time_rule import ALWAYS_US

Key = tuple[int | str, ...]
"""A primary or foreign key, part by part in the order of the parent's primary key."""

Value = None | bool | int | float | str | list[str] | list[float] | Key

OPERATIONS = ("insert", "upsert", "delete")
"""In the order by which events of equal times are folded."""

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_UINT64_MAX = 2**64 - 1


def key_order(key: Key) -> tuple[tuple[int, int, bytes], ...]:
    """Return what keys are ordered by: part by part, integers by value, then texts by their UTF-8 bytes."""
    return tuple((0, part, b"") if isinstance(part, int) else (1, 0, part.encode("utf-8")) for part in key)


def key_text(key: Key) -> str:
    """Return a key as the dump names it: a compact JSON list, `[7]` or `["eu",7]`."""
    return json.dumps(list(key), separators=(",", ":"), ensure_ascii=False)


def canonical_cells(table: Table, operation: str, cells: Mapping[str, Value]) -> dict[str, Value]:
    """Return the cells of an event in canonical form, typed columns first, then links, both in the schema's order.

    An insert says the whole row, so its explicit nulls say nothing and are left out; a delete has no cells.

    Raises:
        KeyError: a cell names neither a column nor a link of the table.
    """
    if operation == "delete":
        return {}
    kinds: dict[str, ColumnKind | None] = {column.name: column.kind for column in table.columns}
    kinds |= {link.name: None for link in table.links}
    unknown = cells.keys() - kinds.keys()
    if unknown:
        raise KeyError(f"{table.name} has no column or link named {sorted(unknown)}")
    canonical = {name: canonical_cell(kind, cells[name]) for name, kind in kinds.items() if name in cells}
    if operation == "insert":
        return {name: value for name, value in canonical.items() if value is not None}
    return canonical


def canonical_cell(kind: ColumnKind | None, value: Value) -> Value:
    """Return the one value that stands for all ways to say the same; kind None is a foreign key (a tuple of parts).

    The elements of a multicategorical are a set, sorted by their UTF-8 bytes; the empty text alone is the empty set.
    The components of an embedding are rounded to float32, and a zero has no sign.

    Raises:
        ValueError: a number is not finite; no such event enters a graph.
    """
    if value is None or (kind is ColumnKind.TIMESTAMP and value == ALWAYS_US):
        return None
    if kind is None:
        return value if isinstance(value, tuple) else (cast("int | str", value),)
    if kind is ColumnKind.NUMERICAL:
        return _finite(cast("float", value)) + 0.0
    if kind is ColumnKind.MULTICATEGORICAL:
        elements = sorted(set(cast("list[str]", value)), key=lambda text: text.encode("utf-8"))
        return [] if elements == [""] else elements
    if kind is ColumnKind.EMBEDDING:
        return [struct.unpack("<f", struct.pack("<f", _finite(each)))[0] for each in cast("list[float]", value)]
    if kind is ColumnKind.BOOLEAN:
        return bool(value)
    return int(cast("int", value)) if kind is ColumnKind.TIMESTAMP else str(value)


def content_hash(table: Table, operation: str, cells: Mapping[str, Value]) -> int:
    """Return the 64-bit FNV-1a hash of canonical cells, by which the native core, too, tells and orders contents.

        for each cell given (of an insert: for each of the table), columns first, then links, in the schema's order:
        slot: uint16 (position among the columns, then the links), tag: uint8, payload
          0 null                                  3 boolean      uint8
          1 numerical    float64                  4 text, categorical, foreign key of one text: uint32 size, UTF-8
          2 timestamp, foreign key of one integer: int64
          4 multicategorical: as a text, its elements joined by 0x1F
          5 embedding    uint32 length, float32s  6 composite foreign key: uint32 parts, each with its tag (2 or 4)

    Numbers are little-endian.
    """
    slots: list[tuple[str, ColumnKind | None]] = [(column.name, column.kind) for column in table.columns]
    slots += [(link.name, None) for link in table.links]
    content = b"".join(
        struct.pack("<H", slot) + _payload(kind, cells.get(name))
        for slot, (name, kind) in enumerate(slots)
        if name in cells or operation == "insert"
    )
    hashed = _FNV_OFFSET
    for byte in content:
        hashed = ((hashed ^ byte) * _FNV_PRIME) & _UINT64_MAX
    return hashed


def _payload(kind: ColumnKind | None, value: Value) -> bytes:
    if value is None:
        return b"\x00"
    if kind is None:
        key = cast("Key", value)
        parts = b"".join(_part(part) for part in key)
        return parts if len(key) == 1 else struct.pack("<BI", 6, len(key)) + parts
    if kind is ColumnKind.NUMERICAL:
        return struct.pack("<Bd", 1, value)
    if kind is ColumnKind.TIMESTAMP:
        return struct.pack("<Bq", 2, value)
    if kind is ColumnKind.BOOLEAN:
        return struct.pack("<BB", 3, value)
    if kind is ColumnKind.EMBEDDING:
        components = cast("list[float]", value)
        return struct.pack(f"<BI{len(components)}f", 5, len(components), *components)
    return _part("\x1f".join(cast("list[str]", value)) if kind is ColumnKind.MULTICATEGORICAL else str(value))


def _part(part: int | str) -> bytes:
    if isinstance(part, int):
        return struct.pack("<Bq", 2, part)
    encoded = part.encode("utf-8")
    return struct.pack("<BI", 4, len(encoded)) + encoded


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return float(number)

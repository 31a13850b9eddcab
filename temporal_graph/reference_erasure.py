"""What is erased, by definition: the plain twin of `native/erasure.cpp`, worked out from all changes that ever came.

- A row is its parent's own if any change of it ever named the parent by a link that erases.
- A row is erased until the latest time until which it, or a row whose own it is, was erased by an event.
- A change of the row that happened at or before that time is as if it had never come, whenever it was known.
- Any other change that names an erased row by a link that does not erase, and happened at or before the time until
  which that row is erased, is as if it had named nothing: null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from temporal_graph.reference_values import Key, Value
from temporal_graph.schema_types import Schema, Table
from temporal_graph.time_rule import ALWAYS_US

NEVER_US: Final = ALWAYS_US - 1
"""Before every time: the row was not erased."""

Row = tuple[str, Key]


@dataclass(frozen=True)
class Change:
    """A change that was judged: both clocks are known."""

    table: str
    operation: str
    key: Key
    event_time_us: int
    known_time_us: int
    cells: Mapping[str, Value]

    @property
    def row(self) -> Row:
        """The row it is of."""
        return self.table, self.key


def erased_until(schema: Schema, changes: Iterable[Change], erasures: Mapping[Row, int]) -> dict[Row, int]:
    """Return, for each erased row, the time until which it is; `erasures` are those that events asked for."""
    owners: dict[Row, set[Row]] = {}
    for change in changes:
        for link in schema.table(change.table).links:
            parent = _key(change.cells.get(link.name)) if change.operation != "delete" else None
            if link.erases and parent is not None:
                owners.setdefault(change.row, set()).add((link.parent, parent))
    until_us = dict(erasures)
    while True:
        latest = {
            row: max([until_us.get(row, NEVER_US), *(until_us.get(owner, NEVER_US) for owner in of)])
            for row, of in owners.items()
        }
        spread = until_us | {row: time_us for row, time_us in latest.items() if time_us > NEVER_US}
        if spread == until_us:
            return until_us
        until_us = spread


def cut(table: Table, change: Change, until_us: Mapping[Row, int]) -> Change:
    """Return the change without the links to rows that were erased after it."""
    gone = [
        link.name
        for link in table.links
        if not link.erases
        and (parent := _key(change.cells.get(link.name))) is not None
        and change.event_time_us <= until_us.get((link.parent, parent), NEVER_US)
    ]
    return replace(change, cells={**change.cells, **dict.fromkeys(gone)}) if gone else change


def _key(value: Value) -> Key | None:
    if value is None or isinstance(value, tuple):
        return value
    assert isinstance(value, int | str)
    return (value,)

"""Which items' vectors are no longer of what the graph says: their own rows changed, or rows that they point to.

GraphView.rows_changed(items)   ─┐
GraphView.rows_changed(parents) ─┴► items that point there ─► states to read anew, some at a time
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.ranking.plans import ITEM_HOPS
from online_sampler.plan import FAN_OUT_MAX, NODE_LIMIT_MAX, SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.schema import Schema
from temporal_graph.time_rule import TIME_MAX_US
from temporal_graph.versions import ChangeMark
from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]

STATES_MAX = 2
"""States of an item that wait to be read: the one that holds, and one that is known to come."""


class ItemChanges:
    """What changed of the items of one graph. One thread at a time; memory as of STATES_MAX states an item.

    A row that items point to, one link away or two, is a change of all of them, of the newest FAN_OUT_MAX by each link.
    """

    def __init__(self, view: GraphView, items: str, *, after_us: int | None = None) -> None:
        """What the graph has already counts as a change where it becomes visible after a time; by default none does."""
        self._view, self._items = view, items
        self._item_table = view.schema.table_index(items)
        self._children = {
            table: None if (plan := children_plan(view.schema, items, table)) is None else Sampler(view, plan)
            for table in tables_of(view.schema, items)
        }
        self._marks: dict[str, ChangeMark] = {}
        self._row: Int64 = np.zeros(0, dtype=np.int64)
        self._time_us: Int64 = np.zeros(0, dtype=np.int64)
        self._take(TIME_MAX_US if after_us is None else after_us)

    def __len__(self) -> int:
        """The number of states that wait to be read."""
        return len(self._row)

    def refresh(self) -> None:
        """Take in what changed since the last call."""
        self._take(None)

    def _take(self, after_us: int | None) -> None:
        parts = [(self._row, self._time_us)]
        for table, children in self._children.items():
            found = self._view.rows_changed(table, self._marks.get(table))
            self._marks[table] = found.mark
            row, time_us = found.row, found.visible_time_us
            if after_us is not None:
                row, time_us = row[time_us > after_us], time_us[time_us > after_us]
            if not len(row):
                continue
            if table == self._items:
                parts.append((row, time_us))
            if children is not None:
                parts.append(self._pointing(children, table, *newest_states(row, time_us)))
        if len(parts) > 1:
            row, time_us = (np.concatenate(each) for each in zip(*parts, strict=True))
            self._row, self._time_us = newest_states(row, time_us)

    def take(self, most: int) -> tuple[Int64, Int64]:
        """Return (row, visible time), int64[n] each, of `most` states that wait at most, the first to come first.

        Those of an item stand together, ascending in time.
        """
        row, time_us = self._row[:most], self._time_us[:most]
        self._row, self._time_us = self._row[most:], self._time_us[most:]
        return row, time_us

    def _pointing(self, children: Sampler, table: str, row: Int64, time_us: Int64) -> tuple[Int64, Int64]:
        """Return (row, time) of the items that point to rows of a table now, or will, with the times of the rows."""
        sample = children.sample_rows(table, row, np.full(len(row), TIME_MAX_US - 1), as_of=True)
        node = np.flatnonzero(sample.table == self._item_table)
        seed = np.searchsorted(sample.seed_offset, node, side="right") - 1
        child = node != sample.seed_offset[seed]
        return sample.row[node[child]], time_us[seed[child]]


def newest_states(row: Int64, time_us: Int64) -> tuple[Int64, Int64]:
    """Return (row, time) with the STATES_MAX latest times of each row, once each: rows as they came, times rising."""
    if not len(row):
        return row, time_us
    order = np.lexsort((-time_us, row))
    repeated = np.append(False, (np.diff(row[order]) == 0) & (np.diff(time_us[order]) == 0))
    order = order[~repeated]
    start = np.flatnonzero(np.diff(row[order], prepend=-1))
    count = np.diff(np.append(start, len(order)))
    kept = np.arange(len(order)) - np.repeat(start, count) < STATES_MAX
    came = np.repeat(np.minimum.reduceat(order, start), count)
    order, came = order[kept], came[kept]
    order = order[np.lexsort((time_us[order], came))]
    return row[order], time_us[order]


def tables_of(schema: Schema, items: str) -> tuple[str, ...]:
    """Return the tables whose rows an item's vector is made of: its own, and those that `item_plan` samples."""
    found = [items]
    tables = {items}
    for _ in range(ITEM_HOPS):
        tables = {link.parent for table in tables for link in schema.table(table).links}
        found += sorted(tables - set(found))
    return tuple(found)


def children_plan(schema: Schema, items: str, table: str) -> SamplingPlan | None:
    """Return the plan that finds the items whose vectors a row of a table is part of; None where it is of none's."""
    links = schema.table(items).links
    direct = {link.backward: FAN_OUT_MAX for link in links if link.parent == table}
    between = {link.parent for link in links}
    through = {
        link.backward: FAN_OUT_MAX for each in between for link in schema.table(each).links if link.parent == table
    }
    first = direct | through
    if not first:
        return None
    second = {link.backward: FAN_OUT_MAX for link in links} if through else {}
    hops = [first, second] if second else [first]
    numbers = [{f"hop{index}": {"default": 0, **links}} for index, links in enumerate(hops, start=1)]
    return SamplingPlan.from_dict({"num_neighbors": numbers, "node_limit": NODE_LIMIT_MAX})

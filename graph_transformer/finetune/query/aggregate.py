"""What linked rows add to their entities, and its sum, count, first, ... over a window in time.

    States ─► contributions: (entity, event time, value) and from when until when each stood so
           ─► over (t + start, t + end]: as it stood at a time, or as it finally stands and since when

A row's states in which it adds the same to the same entity are one contribution: a later report on another column does
not delay a label, and a later deletion does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.bound import BoundAggregation, BoundQuery
from graph_transformer.finetune.query.calendar import shifted_time
from graph_transformer.finetune.query.rows import States
from graph_transformer.finetune.query.syntax import Column, Comparison, Function, Window
from graph_transformer.finetune.query.values import Truth, Values, compare, truth_of
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contributions:
    """n contributions by event time, ties by the time they became visible and then by key.

    entity int64 [n]; event_time_us int64 [n]; value [n]; `from_us` and `to_us` int64 [n], the time it stood;
    `final` bool [n], whether it still stands in the last state known.
    """

    entity: Int64
    event_time_us: Int64
    value: Values
    from_us: Int64
    to_us: Int64
    final: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The result for every entity: `values` [entities], null where undefined, and from when on it is known.

    Of LIST_DISTINCT `offset` int64 [entities + 1] and `item` int64 say what stands in the list of each entity: codes of
    the column or rows of the link's parent, ascending; the value is their number.
    """

    values: Values
    known_time_us: Int64
    offset: Int64 | None = None
    item: Int64 | None = None


def row_truth(states: States, bound: BoundQuery, comparison: Comparison) -> Truth:
    """Compare a column of the table in each of its states."""
    assert isinstance(comparison.operand, Column)
    values = states.values(bound.columns[comparison.operand])
    return compare(values, comparison.operator, comparison.values, states.source)


def contributions_of(
    states: States, bound: BoundQuery, aggregation: BoundAggregation, *, known_by_us: int | None = None
) -> Contributions:
    """Return what the rows of a table add to their entities, with states known by a time only (None: ever)."""
    versions = states.versions
    known = np.arange(len(states))
    if known_by_us is not None:
        known = np.flatnonzero(versions.valid_from_us <= known_by_us)
    values = states.values(aggregation.column)
    if aggregation.function is Function.COUNT:
        values = Values(np.ones(len(states)), values.null)  # what a cell holds is not counted, only that it does
    entity = versions.parents[:, versions.link_names.index(aggregation.link.name)]
    counts = ~versions.deleted & (entity >= 0) & ~values.null
    if aggregation.written.where is not None:
        counts &= truth_of(aggregation.written.where, lambda each: row_truth(states, bound, each)).true
    row, entity, counts = versions.row[known], entity[known], counts[known]
    event_time_us, value = versions.event_time_us[known], values.taken(known)
    # A state continues the one before where the row adds the same to the same entity, or still nothing.
    same = (row[1:] == row[:-1]) & (counts[1:] == counts[:-1])
    equal = (entity[1:] == entity[:-1]) & (event_time_us[1:] == event_time_us[:-1])
    equal &= value.data[1:] == value.data[:-1]
    first = np.flatnonzero(np.concatenate([np.ones(min(len(row), 1), dtype=bool), ~(same & (equal | ~counts[1:]))]))
    last = np.append(first[1:], len(row)) - 1 if len(first) else first
    final = np.append(row[1:] != row[:-1], True)[last] if len(first) else np.zeros(0, dtype=bool)
    from_us, to_us = versions.valid_from_us[known][first], versions.valid_to_us[known][last].copy()
    to_us[final] = TIME_MAX_US
    counted = np.flatnonzero(counts[first])
    shown = first[counted]
    order = _order(states, aggregation, row[shown], event_time_us[shown], versions)
    counted, shown = counted[order], shown[order]
    return Contributions(
        entity[shown], event_time_us[shown], value.taken(shown), from_us[counted], to_us[counted], final[counted]
    )


def _order(states: States, aggregation: BoundAggregation, row: Int64, event_time_us: Int64, versions: Any) -> Int64:
    """By event time; where FIRST and LAST must choose among equal times, by visible time and then by key."""
    if aggregation.function not in (Function.FIRST, Function.LAST):
        return np.argsort(event_time_us, kind="stable")
    starts = np.flatnonzero(np.diff(versions.row, prepend=-1))
    visible_us = versions.valid_from_us[starts][np.searchsorted(versions.row[starts], row)]
    order = np.lexsort((row, visible_us, event_time_us))
    tied = (np.diff(event_time_us[order]) == 0) & (np.diff(visible_us[order]) == 0)
    rows = np.unique(row[order][np.append(tied, False) | np.append(False, tied)] if len(order) else row)
    if not len(rows):
        return order
    keys = states.source.keys(states.table, rows)
    rank = np.zeros(len(row), dtype=np.int64)
    place = np.empty(len(rows), dtype=np.int64)
    place[sorted(range(len(rows)), key=keys.__getitem__)] = np.arange(len(rows))
    at = np.minimum(np.searchsorted(rows, row), len(rows) - 1)
    rank[rows[at] == row] = place[at][rows[at] == row]
    return np.lexsort((rank, visible_us, event_time_us))


def aggregate(
    function: Function,
    found: Contributions,
    *,
    entities: int,
    time_us: int,
    window: Window | None,
    stood_at_us: int | None,
) -> Aggregated:
    """Aggregate over (t + start, t + end] for each of the entities what stood at a time, or (None) finally stands.

    The latter is known once all of it stands, and once what stood before and was taken back had been.
    """
    part = slice(0, len(found.entity))
    end_us = ALWAYS_US
    if window is not None:
        end_us = shifted_time(time_us, window.end, window.unit)
        start_us = ALWAYS_US if window.start is None else shifted_time(time_us, window.start, window.unit)
        low, high = np.searchsorted(found.event_time_us, [start_us, end_us], side="right")
        part = slice(int(low), int(high))
    from_us, to_us, entity = found.from_us[part], found.to_us[part], found.entity[part]
    known_time_us = np.full(entities, end_us, dtype=np.int64)
    if stood_at_us is not None:
        stands = (from_us <= stood_at_us) & (stood_at_us < to_us)
    else:
        stands = found.final[part]
        np.maximum.at(known_time_us, entity, np.where(stands, from_us, to_us))
    chosen = np.flatnonzero(stands) + part.start
    values, offset, item = _reduced(function, found.entity[chosen], found.value.taken(chosen), entities)
    return Aggregated(values, known_time_us, offset, item)


def _reduced(
    function: Function, entity: Int64, value: Values, entities: int
) -> tuple[Values, Int64 | None, Int64 | None]:
    """Return one value per entity from contributions in order of time, and of a list its offsets and items."""
    count = np.bincount(entity, minlength=entities)
    nothing = count == 0
    defined = np.zeros(entities, dtype=bool)
    if function is Function.COUNT:
        return Values(count.astype(np.float64), defined), None, None
    if function in (Function.SUM, Function.AVG):
        total = np.bincount(entity, weights=value.data.astype(np.float64), minlength=entities)
        if function is Function.SUM:
            return Values(total, defined), None, None
        return Values(total / np.maximum(count, 1), nothing), None, None
    if function in (Function.FIRST, Function.LAST):
        place = np.full(entities, -1 if function is Function.LAST else len(entity), dtype=np.int64)
        (np.maximum if function is Function.LAST else np.minimum).at(place, entity, np.arange(len(entity)))
        return value.taken(np.where(nothing, -1, place)), None, None
    if function in (Function.MIN, Function.MAX):
        kept = np.zeros(entities, dtype=value.data.dtype)
        order = np.argsort(entity, kind="stable")
        starts = np.flatnonzero(np.diff(entity[order], prepend=-1))
        if len(starts):
            reduced = (np.minimum if function is Function.MIN else np.maximum).reduceat(value.data[order], starts)
            kept[entity[order][starts]] = reduced
        return Values(kept, nothing), None, None
    return _distinct(function, entity, value, nothing)


def _distinct(
    function: Function, entity: Int64, value: Values, nothing: NDArray[np.bool_]
) -> tuple[Values, Int64 | None, Int64 | None]:
    entities = len(nothing)
    item, code = np.unique(value.data, return_inverse=True)
    pair = np.unique(entity * np.int64(max(len(item), 1)) + code)
    owner, code = np.divmod(pair, np.int64(max(len(item), 1)))
    count = np.bincount(owner, minlength=entities)
    if function is Function.COUNT_DISTINCT:
        return Values(count.astype(np.float64), np.zeros(entities, dtype=bool)), None, None
    offset = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    return Values(count.astype(np.float64), nothing), offset, item[code].astype(np.int64)

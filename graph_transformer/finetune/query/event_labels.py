"""Labels that are columns: of a row that is asked just before it happens, or an outcome of an entity not known yet.

A label is known from the moment its column took its last value: an outcome reported days later, then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.aggregate import row_truth
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.found import Found
from graph_transformer.finetune.query.rows import RowSource, States
from graph_transformer.finetune.query.syntax import Aggregation, Column
from graph_transformer.finetune.query.values import Values, truth_of
from temporal_graph.time_rule import ALWAYS_US

Int64 = NDArray[np.int64]


def event_labels(source: RowSource, bound: BoundQuery, *, known_by_us: int | None = None) -> Found:
    """Return the label of every row that has one by a time (None: ever), by event time and row.

    WHERE is judged by what the row itself brings, its first state; rows without time are never asked.
    """
    states = States(source, bound.entity)
    versions = states.versions
    values = target_values(states, bound)
    last = states.last(known_by_us)
    known_time_us = settled_from(states, values, last)
    keep = ~versions.deleted[last] & ~values.null[last] & (versions.event_time_us[last] != ALWAYS_US)
    if bound.query.where is not None:
        first = np.searchsorted(versions.row, versions.row[last])
        keep &= truth_of(bound.query.where, lambda each: row_truth(states, bound, each)).true[first]
    last, known_time_us = last[keep], known_time_us[keep]
    order = np.lexsort((versions.row[last], versions.event_time_us[last]))
    last, known_time_us = last[order], known_time_us[order]
    return Found(versions.row[last], versions.event_time_us[last], known_time_us, values.taken(last))


def target_values(states: States, bound: BoundQuery) -> Values:
    """Return what a column target says in every state: the column's value, or whether its condition holds."""
    target = bound.query.target
    assert not isinstance(target, Aggregation)
    if isinstance(target, Column):
        return states.values(bound.columns[target])
    truth = truth_of(target, lambda each: row_truth(states, bound, each))
    return Values(truth.true.astype(np.float64), ~truth.known)


def settled_from(states: States, values: Values, last: Int64) -> Int64:
    """Return int64: since when each of these last states' value has stood."""
    versions = states.versions
    if not len(versions.row):
        return np.zeros(0, dtype=np.int64)
    moved = np.diff(versions.row, prepend=-1) != 0
    changed = (versions.deleted[1:] != versions.deleted[:-1]) | (values.null[1:] != values.null[:-1])
    changed |= ~values.null[1:] & (values.data[1:] != values.data[:-1])
    starts = np.flatnonzero(moved | np.concatenate([[True], changed]))
    found: Int64 = versions.valid_from_us[starts[np.searchsorted(starts, last, side="right") - 1]]
    return found

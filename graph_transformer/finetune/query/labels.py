"""The training table: a bound query, a graph and anchor times -> a label per entity and anchor, and since when known.

    anchors ─► entities that are there as of t, and fulfil WHERE as of t
            ─► the target over its window, in the last state known ─► LabelTable ─► Examples, Parquet, task table

A label over (t + start, t + end] counts rows whose event time lies there. It is known once the window is over and every
state it rests on is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.aggregate import Aggregated, Contributions, aggregate, contributions_of
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.event_labels import event_labels, settled_from, target_values
from graph_transformer.finetune.query.found import Found, encoded, joined
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.rows import RowSource, States
from graph_transformer.finetune.query.syntax import Aggregation, Column, Comparison, Condition, Window
from graph_transformer.finetune.query.values import Truth, Values, compare, truth_of
from temporal_graph.time_rule import ALWAYS_US

Int64 = NDArray[np.int64]


def make_labels(
    source: RowSource,
    bound: BoundQuery,
    anchors_us: Int64,
    *,
    task_name: str = "task",
    known_by_us: int | None = None,
    classes: Sequence[str] | None = None,
) -> LabelTable:
    """Return the label of every entity at every anchor where it is defined, by anchor and row.

    Of an event-level query the anchors do not matter: each row is asked at its own event time. `known_by_us` limits
    what labels rest on to what was known by a time. `classes` are those of an earlier table, else those that occur.
    """
    if bound.event_level:
        return encoded(bound, task_name, event_labels(source, bound, known_by_us=known_by_us), classes)
    labels = _EntityLabels(source, bound, known_by_us)
    anchors = np.unique(np.asarray(anchors_us, dtype=np.int64)).tolist()
    # Of no anchors an empty table still has the right columns.
    parts = [labels.at(time_us) for time_us in anchors] or [labels.at(0, nobody=True)]
    return encoded(bound, task_name, joined(parts), classes)


class _EntityLabels:
    """What is the same at all anchors (states, contributions), each made once."""

    def __init__(self, source: RowSource, bound: BoundQuery, known_by_us: int | None) -> None:
        self._source, self._bound, self._known_by_us = source, bound, known_by_us
        self._tables: dict[str, States] = {}
        self._contributions: dict[tuple[Aggregation, bool], Contributions] = {}
        self._entities = source.row_count(bound.entity)
        self._timeless = source.schema.table(bound.entity).time_column is None

    def at(self, time_us: int, *, nobody: bool = False) -> Found:
        """Return the labels of one anchor."""
        query = self._bound.query
        states = self._states(self._bound.entity)
        state = states.as_of(time_us, self._entities)
        there = state >= 0
        asked = ~states.versions.deleted[state] if len(states) else np.ones(self._entities, dtype=bool)
        asked[~there] = self._timeless  # known by a foreign key alone: without time it is there, with one it is not yet
        known_time_us = np.full(self._entities, time_us, dtype=np.int64)
        if query.where is not None:
            asked &= self._truth(query.where, time_us, state, as_of=True, known_time_us=known_time_us).true
        if query.assuming is not None:
            asked &= self._truth(query.assuming, time_us, state, as_of=False, known_time_us=known_time_us).true
        if self._bound.outcome is not None:
            found = self._outcome(time_us, state)
        elif isinstance(query.target, Aggregation):
            found = self._aggregated(query.target, time_us)
        else:
            assert not isinstance(query.target, Column)
            truth = self._truth(query.target, time_us, state, as_of=False, known_time_us=known_time_us)
            found = Aggregated(Values(truth.true.astype(np.float64), ~truth.known), known_time_us)
        np.maximum(known_time_us, found.known_time_us, out=known_time_us)
        row = np.flatnonzero(asked & ~found.values.null & (not nobody))
        offset = item = None
        if found.offset is not None and found.item is not None:
            counts = np.diff(found.offset)
            item = found.item[np.repeat(np.isin(np.arange(self._entities), row), counts)]
            offset = np.concatenate([[0], np.cumsum(counts[row])]).astype(np.int64)
        return Found(row, np.full(len(row), time_us), known_time_us[row], found.values.taken(row), offset, item)

    def _truth(self, condition: Condition, time_us: int, state: Int64, *, as_of: bool, known_time_us: Int64) -> Truth:
        """Judge a condition for every entity; `known_time_us` is raised to when each of its parts is known."""

        def judged(comparison: Comparison) -> Truth:
            operand = comparison.operand
            if isinstance(operand, Column):
                values = self._states(self._bound.entity).values(self._bound.columns[operand]).taken(state)
            else:
                found = self._aggregate(operand, time_us, operand.window, as_of=as_of)
                values = found.values
                if not as_of:
                    np.maximum(known_time_us, found.known_time_us, out=known_time_us)
            return compare(values, comparison.operator, comparison.values, self._source)

        return truth_of(condition, judged)

    def _aggregated(self, target: Aggregation, time_us: int) -> Aggregated:
        """Return the target of one anchor; of a forecast the values [entities, steps] of its windows."""
        window = target.window
        assert window is not None
        if self._bound.query.timeframes is None:
            found = self._aggregate(target, time_us, window, as_of=False)
            if found.item is not None:
                # The values are the lists' lengths; their codes or rows are what the texts or the parent explain.
                shown = self._states(target.column.table).values(self._bound.columns[target.column])
                values = Values(found.values.data, found.values.null, shown.texts, shown.parent, shown.is_set)
                return Aggregated(values, found.known_time_us, found.offset, found.item)
            return found
        steps = [
            self._aggregate(
                target, time_us, Window(window.end * step, window.end * (step + 1), window.unit), as_of=False
            )
            for step in range(self._bound.steps)
        ]
        data = np.stack([step.values.data for step in steps], axis=1)
        null = np.logical_or.reduce([step.values.null for step in steps])
        return Aggregated(Values(data, null), np.maximum.reduce([step.known_time_us for step in steps]))

    def _outcome(self, time_us: int, state: Int64) -> Aggregated:
        """An entity's outcome that is not known at t, and will be."""
        states = self._states(self._bound.entity)
        values, last = target_values(states, self._bound), states.last(self._known_by_us)
        row = states.versions.row[last]
        place, known_time_us = np.full(self._entities, -1), np.full(self._entities, ALWAYS_US)
        place[row], known_time_us[row] = last, settled_from(states, values, last)
        found = values.taken(place)
        open_ = values.taken(state).null & (known_time_us > time_us)
        return Aggregated(
            Values(found.data, found.null | ~open_, found.texts, found.parent, found.is_set), known_time_us
        )

    def _aggregate(self, written: Aggregation, time_us: int, window: Window | None, *, as_of: bool) -> Aggregated:
        bound = self._bound.aggregations[written]
        if (written, as_of) not in self._contributions:
            # WHERE goes by what stood at t, whenever that was; a label by what stands in the end.
            known_by_us = None if as_of else self._known_by_us
            made = contributions_of(self._states(bound.table), self._bound, bound, known_by_us=known_by_us)
            self._contributions[written, as_of] = made
        found = self._contributions[written, as_of]
        return aggregate(bound.function, found, entities=self._entities, time_us=time_us, window=window, as_of=as_of)

    def _states(self, table: str) -> States:
        if table not in self._tables:
            self._tables[table] = States(self._source, table)
        return self._tables[table]

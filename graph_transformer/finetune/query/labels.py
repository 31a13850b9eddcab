"""The training table: a bound query, a graph and anchor times -> a label per entity and anchor, and since when known.

    anchors ─► entities that are there as of t, and fulfil WHERE as of t
            ─► the target over its window, in the last state known ─► LabelTable ─► Examples, Parquet, task table

A label over (t + start, t + end] counts rows whose event time lies there. It is known once the window is over and every
state it rests on is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.aggregate import Aggregated, Contributions, aggregate, contributions_of
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.calendar import shifted_time
from graph_transformer.finetune.query.event_labels import event_labels, settled_from, target_values
from graph_transformer.finetune.query.found import Found, encoded, joined
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.rows import RowSource, States
from graph_transformer.finetune.query.syntax import Aggregation, Column, Comparison, Condition, Window, operands_of
from graph_transformer.finetune.query.values import Truth, Values, compare, truth_of
from temporal_graph.time_rule import ALWAYS_US

__all__ = ["LabelTable", "make_labels"]

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

LABELS_MAX = 50_000_000
"""Labels of one table: some gigabytes, and more than any training reads."""


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

    Raises:
        TaskError: more than `LABELS_MAX` labels.
    """
    if bound.event_level:
        return encoded(bound, task_name, event_labels(source, bound, known_by_us=known_by_us), classes)
    labels = _EntityLabels(source, bound, known_by_us)
    anchors = np.unique(np.asarray(anchors_us, dtype=np.int64)).tolist()
    # Of no anchors an empty table still has the right columns.
    parts, count = [labels.at(0, nobody=True)], 0
    for time_us in anchors:
        parts.append(labels.at(time_us))
        count += len(parts[-1].row)
        if count > LABELS_MAX:
            raise TaskError(
                "anchors", f"at most {LABELS_MAX:,} labels: fewer anchors, or a WHERE", f"{count:,} or more"
            )
    return encoded(bound, task_name, joined(parts), classes)


class _EntityLabels:
    """What is the same at all anchors (states, contributions), each made once."""

    def __init__(self, source: RowSource, bound: BoundQuery, known_by_us: int | None) -> None:
        self._source, self._bound, self._known_by_us = source, bound, known_by_us
        self._tables: dict[str, States] = {}
        self._contributions: dict[tuple[Aggregation, bool], Contributions] = {}
        self._entities = source.row_count(bound.entity)
        self._targeted = operands_of(bound.query.target)
        self._assumed = operands_of(bound.query.assuming) if bound.query.assuming is not None else []
        self._timeless = source.schema.table(bound.entity).time_column is None

    def at(self, time_us: int, *, nobody: bool = False) -> Found:
        """Return the labels of one anchor as they finally stand, and beside them how late ones stood at first."""
        states = self._states(self._bound.entity)
        state = states.as_of(time_us, self._entities)
        asked = ~states.versions.deleted[state] if len(states) else np.ones(self._entities, dtype=bool)
        asked[state < 0] = self._timeless  # named by others only: without time it is there, with one it is not yet
        asked &= not nobody
        if self._bound.query.where is not None:
            asked &= self._truth(self._bound.query.where, time_us, state, stood_at_us=time_us)[0].true
        final = self._found(time_us, state, asked)
        if self._bound.outcome is not None:
            return final
        end_us = max(shifted_time(time_us, each.end, each.unit) for each in self._bound.windows)
        late = final.known_time_us > end_us
        settled = np.zeros(self._entities, dtype=bool)
        settled[final.row[~late]] = True
        # A row that is missing until a late report would tell that one is coming: what it seemed at first stands there.
        changed = self._changed_after(time_us, end_us) & asked & ~settled
        first = self._found(time_us, state, changed, stood_at_us=end_us) if changed.any() else None
        return replace(final, first=first)

    def _found(self, time_us: int, state: Int64, asked: Mask, *, stood_at_us: int | None = None) -> Found:
        """Return the labels of those asked for whom one is defined, as they stood at a time or (None) finally stand."""
        query = self._bound.query
        known_time_us = np.full(self._entities, time_us, dtype=np.int64)
        if query.assuming is not None:
            truth, known = self._truth(query.assuming, time_us, state, stood_at_us=stood_at_us)
            asked, known_time_us = asked & truth.true, np.maximum(known_time_us, known)
        if self._bound.outcome is not None:
            found = self._outcome(time_us, state)
        elif isinstance(query.target, Aggregation):
            found = self._aggregated(query.target, time_us, stood_at_us=stood_at_us)
        else:
            assert not isinstance(query.target, Column)
            truth, known = self._truth(query.target, time_us, state, stood_at_us=stood_at_us)
            found = Aggregated(Values(truth.true.astype(np.float64), ~truth.known), known)
        known_time_us = np.maximum(known_time_us, found.known_time_us)
        row = np.flatnonzero(asked & ~found.values.null)
        offset = item = None
        if found.offset is not None and found.item is not None:
            counts, chosen = np.diff(found.offset), np.zeros(self._entities, dtype=bool)
            chosen[row] = True
            item = found.item[np.repeat(chosen, counts)]
            offset = np.concatenate([[0], np.cumsum(counts[row])]).astype(np.int64)
        return Found(row, np.full(len(row), time_us), known_time_us[row], found.values.taken(row), offset, item)

    def _changed_after(self, time_us: int, end_us: int) -> Mask:
        """Return which entities have something in the label's windows that came or went after they were over."""
        changed = np.zeros(self._entities, dtype=bool)
        steps = self._bound.steps
        for operand, times in (*((each, steps) for each in self._targeted), *((each, 1) for each in self._assumed)):
            if isinstance(operand, Aggregation) and operand.window is not None:
                window = Window(operand.window.start, operand.window.end * times, operand.window.unit)
                changed |= self._aggregate(operand, time_us, window, stood_at_us=None).known_time_us > end_us
        return changed

    def _truth(
        self, condition: Condition, time_us: int, state: Int64, *, stood_at_us: int | None
    ) -> tuple[Truth, Int64]:
        """Judge a condition for every entity; return also int64 [entities], when all of its parts are known."""
        known_time_us = np.full(self._entities, ALWAYS_US, dtype=np.int64)

        def judged(comparison: Comparison) -> Truth:
            operand = comparison.operand
            if isinstance(operand, Column):
                values = self._states(self._bound.entity).values(self._bound.columns[operand]).taken(state)
            else:
                found = self._aggregate(operand, time_us, operand.window, stood_at_us=stood_at_us)
                values = found.values
                np.maximum(known_time_us, found.known_time_us, out=known_time_us)
            return compare(values, comparison.operator, comparison.values, self._source)

        return truth_of(condition, judged), known_time_us

    def _aggregated(self, target: Aggregation, time_us: int, *, stood_at_us: int | None) -> Aggregated:
        """Return the target of one anchor; of a forecast the values [entities, steps] of its windows."""
        window = target.window
        assert window is not None
        if self._bound.query.timeframes is None:
            found = self._aggregate(target, time_us, window, stood_at_us=stood_at_us)
            if found.item is not None:
                # The values are the lists' lengths; their codes or rows are what the texts or the parent explain.
                shown = self._states(target.column.table).values(self._bound.columns[target.column])
                values = Values(found.values.data, found.values.null, shown.texts, shown.parent, shown.is_set)
                return Aggregated(values, found.known_time_us, found.offset, found.item)
            return found
        windows = [Window(window.end * step, window.end * (step + 1), window.unit) for step in range(self._bound.steps)]
        steps = [self._aggregate(target, time_us, each, stood_at_us=stood_at_us) for each in windows]
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

    def _aggregate(
        self, written: Aggregation, time_us: int, window: Window | None, *, stood_at_us: int | None
    ) -> Aggregated:
        bound = self._bound.aggregations[written]
        # WHERE goes by what stood at t, whenever labels are made; they go by what is known by then.
        limited = stood_at_us != time_us
        if (written, limited) not in self._contributions:
            known_by_us = self._known_by_us if limited else None
            made = contributions_of(self._states(bound.table), self._bound, bound, known_by_us=known_by_us)
            self._contributions[written, limited] = made
        return aggregate(
            bound.function,
            self._contributions[written, limited],
            entities=self._entities,
            time_us=time_us,
            window=window,
            stood_at_us=stood_at_us,
        )

    def _states(self, table: str) -> States:
        if table not in self._tables:
            self._tables[table] = States(self._source, table)
        return self._tables[table]

"""Training examples: rows with a known outcome, each asked one microsecond before it happened.

view.outcomes ─► the label of each row as known by a time ─► Examples of an interval of event times
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.task import Interval
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US, cutoff_for_event

if TYPE_CHECKING:
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView

Ints = NDArray[np.int64]
LINKED_ROWS_MAX = 65_536
"""Seeds per call when only their parents are asked for."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of the task's table in order of event time.

    row, event_time_us, visible_time_us (of the label) int64[n]; label bool[n].
    """

    row: Ints
    event_time_us: Ints
    visible_time_us: Ints
    label: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def cutoff_time_us(self) -> Ints:
        """int64[n]: one microsecond before each row's event."""
        return cutoff_for_event(self.event_time_us)

    def select(self, chosen: NDArray[np.generic]) -> Examples:
        """Return the examples at these positions, or where this mask is true."""
        return Examples(self.row[chosen], self.event_time_us[chosen], self.visible_time_us[chosen], self.label[chosen])


def labeled_rows(view: GraphView, task: Task, *, known_by_us: int | None = None) -> Examples:
    """Return every row whose label is visible by `known_by_us` (None: ever), with the label as known then.

    Of several reports on a row the one known last counts.
    """
    outcomes = view.outcomes(task.table, task.outcome)
    usable = outcomes.visible_time_us <= (TIME_MAX_US if known_by_us is None else known_by_us)
    row, event_time_us = outcomes.row[usable], outcomes.event_time_us[usable]
    visible, label = outcomes.visible_time_us[usable], outcomes.value[usable] > 0.5
    order = np.lexsort((visible, row))
    last = order[np.flatnonzero(np.diff(row[order], append=-1))]
    last = last[event_time_us[last] != ALWAYS_US]
    last = last[np.lexsort((row[last], event_time_us[last]))]
    return Examples(row[last], event_time_us[last], visible[last], label[last])


def examples_of(view: GraphView, task: Task, interval: Interval, *, known_by_us: int | None) -> Examples:
    """Return the examples of an interval of event times whose label is visible by a time.

    Raises:
        NotEnoughExamples: none, or all of one kind.
    """
    rows = labeled_rows(view, task, known_by_us=known_by_us)
    found = rows.select((rows.event_time_us >= interval.start_us) & (rows.event_time_us < interval.end_us))
    return both_kinds(task, found)


def both_kinds(task: Task, found: Examples) -> Examples:
    """Return the examples; raises NotEnoughExamples unless they hold positives and negatives."""
    if found.label.all() or not found.label.any():
        raise NotEnoughExamples(
            f"{task.table}.{task.outcome}: {len(found)} labels in time, {int(found.label.sum())} of them positive: "
            "both kinds are needed"
        )
    return found


def linked_rows(view: GraphView, table: str, link: str, row: Ints, cutoff_time_us: Ints) -> Ints:
    """Return int64[n]: the parent row each row points to by a link at its cut-off; -1 where there is none."""
    edge_type = view.schema.table(table).link(link).forward
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 0, edge_type: 1}}]})
    sampler = Sampler(view, plan)
    found = np.full(len(row), -1, dtype=np.int64)
    for start in range(0, len(row), LINKED_ROWS_MAX):
        part = slice(start, start + LINKED_ROWS_MAX)
        neighborhood = sampler.sample_rows(table, row[part], cutoff_time_us[part])
        reached = np.flatnonzero(neighborhood.hop == 1)
        sample = np.searchsorted(neighborhood.seed_offset, reached, side="right") - 1
        found[start + sample] = neighborhood.row[reached]
    return found


def without_known_entities(view: GraphView, task: Task, examples: Examples, *, since_us: int) -> Examples:
    """Return the examples whose entity is not known for a positive outcome by the start of the example's day (UTC).

    As the Fraud Detection Handbook measures: a card known as compromised is blocked, its later payments do not count.
    Known means an outcome of a row since `since_us`, visible before the day starts.
    """
    if task.entity is None:
        return examples
    day_us = 86_400_000_000
    rows = labeled_rows(view, task)
    positive = rows.select(rows.label & (rows.event_time_us >= since_us))
    blamed = linked_rows(view, task.table, task.entity, positive.row, positive.cutoff_time_us)
    entity = linked_rows(view, task.table, task.entity, examples.row, examples.cutoff_time_us)
    known_from = np.full(max(int(blamed.max(initial=-1)), int(entity.max(initial=-1))) + 2, TIME_MAX_US, dtype=np.int64)
    np.minimum.at(known_from, blamed, positive.visible_time_us)
    known_from[-1] = TIME_MAX_US  # no entity (-1) is known for nothing
    return examples.select(known_from[entity] >= examples.event_time_us // day_us * day_us)

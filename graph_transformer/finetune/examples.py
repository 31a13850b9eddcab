"""Training examples: questions with a known answer, each asked at its own cut-off.

view.outcomes ─► the label of each row as known by a time ─┐
label table ─► the label of each entity and time ──────────┴─► Examples of an interval of times
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.statistics import ELEMENT_SEPARATOR
from graph_transformer.errors import NotEnoughExamples
from graph_transformer.splits import Interval
from graph_transformer.target import Kind, Target
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US, cutoff_for_event, datetime_from_time_us

if TYPE_CHECKING:
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView

Ints = NDArray[np.int64]
Labels32 = NDArray[np.float32]
LINKED_ROWS_MAX = 65_536
"""Seeds per call when only their parents are asked for."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Questions about rows of the task's table in order of time.

    row int64[n]; time_us int64[n], the row's event time or the time the entity is asked at; cutoff_time_us int64[n];
    visible_time_us int64[n], from when the label may be known; label float32[n]: 0 or 1, a class's index or a number;
    float32[n, classes] of a multilabel target, float32[n, steps] of a forecast.
    """

    row: Ints
    time_us: Ints
    cutoff_time_us: Ints
    visible_time_us: Ints
    label: Labels32

    def __len__(self) -> int:
        return len(self.row)

    def select(self, chosen: NDArray[np.generic]) -> Examples:
        """Return the examples at these positions, or where this mask is true."""
        return Examples(
            self.row[chosen],
            self.time_us[chosen],
            self.cutoff_time_us[chosen],
            self.visible_time_us[chosen],
            self.label[chosen],
        )


class Labels(Protocol):
    """Where a task's labels come from."""

    def known(self, known_by_us: int | None) -> Examples:
        """Return every question whose label is visible by a time (None: ever), with the label as known then."""


@dataclass(frozen=True)
class OutcomeLabels:
    """The labels of an event-level task: what the graph has learned of its rows' outcomes."""

    view: GraphView
    target: Target

    def known(self, known_by_us: int | None) -> Examples:
        """Return the examples by event time; of several reports on a row the one known last counts."""
        return labeled_rows(self.view, self.target, known_by_us=known_by_us)


@dataclass(frozen=True)
class TableLabels:
    """The labels of an entity-level task: computed by a query, or given as a table."""

    examples: Examples

    def known(self, known_by_us: int | None) -> Examples:
        """Return the examples whose label is known by then."""
        if known_by_us is None:
            return self.examples
        return self.examples.select(self.examples.visible_time_us <= known_by_us)


def labeled_rows(view: GraphView, target: Target, *, known_by_us: int | None = None) -> Examples:
    """Return every row of an event-level target whose label is visible by `known_by_us` (None: ever).

    Of several reports on a row the one known last counts. Rows without time, and labels that are no class of the
    target, are left out.
    """
    assert target.column is not None
    outcomes = view.outcomes(target.table, target.column)
    usable = outcomes.visible_time_us <= (TIME_MAX_US if known_by_us is None else known_by_us)
    row, event_time_us = outcomes.row[usable], outcomes.event_time_us[usable]
    visible, value = outcomes.visible_time_us[usable], outcomes.value[usable]
    order = np.lexsort((visible, row))
    last = order[np.flatnonzero(np.diff(row[order], append=-1))]
    label, is_label = _labels_of(view, target, value[last])
    keep = is_label & (event_time_us[last] != ALWAYS_US)
    last, label = last[keep], label[keep]
    by_time = np.lexsort((row[last], event_time_us[last]))
    last, label = last[by_time], label[by_time]
    cutoff = cutoff_for_event(event_time_us[last])
    return Examples(row[last], event_time_us[last], cutoff, visible[last], label)


def _labels_of(view: GraphView, target: Target, value: NDArray[np.float64]) -> tuple[Labels32, NDArray[np.bool_]]:
    """Return labels of an outcome column's values, and which of them are labels."""
    if target.kind is Kind.BINARY:
        return (value > 0.5).astype(np.float32), np.ones(len(value), dtype=bool)
    if target.kind is Kind.REGRESSION:
        return value.astype(np.float32), np.isfinite(value)
    assert target.column is not None
    codes, inverse = np.unique(value.astype(np.int32), return_inverse=True)
    texts = view.strings(target.table, target.column, codes)
    place = {text: index for index, text in enumerate(target.classes)}
    if target.kind is Kind.MULTICLASS:
        found = np.array([place.get(text or "", -1) for text in texts], dtype=np.float32)[inverse]
        return found, found >= 0
    several = np.zeros((len(codes), len(place)), dtype=np.float32)
    for line, text in zip(several, texts, strict=True):
        line[[place[part] for part in (text or "").split(ELEMENT_SEPARATOR) if part in place]] = 1.0
    return several[inverse], np.ones(len(value), dtype=bool)


def examples_of(labels: Labels, target: Target, interval: Interval, *, known_by_us: int | None) -> Examples:
    """Return the examples of an interval of times whose label is visible by a time.

    Raises:
        NotEnoughExamples: none, or all of one kind.
    """
    found = labels.known(known_by_us)
    inside = (found.time_us >= interval.start_us) & (found.time_us < interval.end_us)
    return both_kinds(target, found.select(inside), interval)


def both_kinds(target: Target, found: Examples, interval: Interval) -> Examples:
    """Return the examples of an interval; raises NotEnoughExamples where none are, or where classes do not differ."""
    what = f"{target.table}.{target.column}" if target.column is not None else target.table
    what += f" from {_text(interval.start_us)} until {_text(interval.end_us)}"
    advice = "load a longer history, or give splits in a task file"
    if not len(found):
        raise NotEnoughExamples(f"{what}: no labels that were known in time; {advice}")
    if target.kind in (Kind.BINARY, Kind.MULTICLASS) and (found.label == found.label[0]).all():
        positive = f", {int(found.label.sum())} of them positive" if target.kind is Kind.BINARY else ""
        raise NotEnoughExamples(f"{what}: {len(found)} labels{positive}, and both kinds are needed; {advice}")
    return found


def _text(time_us: int) -> str:
    try:
        return f"{datetime_from_time_us(time_us):%Y-%m-%d %H:%M}"
    except OverflowError:  # an interval without that end
        return "ever"


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
    if task.entity is None or not task.target.event_level:
        return examples
    day_us = 86_400_000_000
    rows = labeled_rows(view, task.target)
    positive = rows.select((rows.label > 0.5) & (rows.time_us >= since_us))
    blamed = linked_rows(view, task.table, task.entity, positive.row, positive.cutoff_time_us)
    entity = linked_rows(view, task.table, task.entity, examples.row, examples.cutoff_time_us)
    known_from = np.full(max(int(blamed.max(initial=-1)), int(entity.max(initial=-1))) + 2, TIME_MAX_US, dtype=np.int64)
    np.minimum.at(known_from, blamed, positive.visible_time_us)
    known_from[-1] = TIME_MAX_US  # no entity (-1) is known for nothing
    return examples.select(known_from[entity] >= examples.time_us // day_us * day_us)

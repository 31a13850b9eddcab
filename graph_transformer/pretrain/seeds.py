"""Where pre-training begins its questions: rows of the task's table, or its entities at the task's times, no labels.

Only of the training period: before validation starts, where there is one, so that what is chosen there was not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.examples import Examples, Labels
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task
from online_sampler.plan import SamplingPlan
from temporal_graph.time_rule import ALWAYS_US, cutoff_for_event, visible_time_us

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

SEEDS_MAX = 500_000
"""Seeds that are drawn from, the latest among them: more than a pre-training of minutes ever asks."""
SEEDS_MIN = 64
PLAN_HOPS = ({"hop1": {"default": 16}}, {"hop2": {"default": 32}})
"""What is sampled where no task says it."""
HELD_SHARE = 0.05
HELD_MAX = 4096
"""The latest seeds, this share and at most so many, are not learned from: they say how much was learned."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Seeds:
    """Seeds in order of time, int64[n] each: row, the time asked about, the cut-off; and the end of the period."""

    row: Ints
    time_us: Ints
    cutoff_time_us: Ints
    end_us: int

    def __len__(self) -> int:
        return len(self.row)

    @property
    def learned(self) -> int:
        """How many are learned from; those after them are held back."""
        return len(self) - min(HELD_MAX, int(len(self) * HELD_SHARE))

    def at(self, chosen: Ints) -> Examples:
        """Return the seeds at these positions as examples, whose label says nothing."""
        label = np.zeros(len(chosen), dtype=np.float32)
        return Examples(
            self.row[chosen], self.time_us[chosen], self.cutoff_time_us[chosen], self.time_us[chosen], label
        )


def task_of_rows(view: GraphView, table: str | None, end_us: int) -> Task:
    """Return a task that asks nothing but the rows of a table themselves, before a time: pre-training without a task.

    Without a name it is the table with a time that has the most rows. The plan takes the parents and their newest rows.

    Raises:
        TaskError: no table has a time, or the one named has none.
    """
    timed = [found.name for found in view.schema.tables if found.time_column is not None]
    if table is None and timed:
        table = max(timed, key=view.row_count)
    if table is None or table not in timed:
        raise TaskError("table", f"a table with a time column ({', '.join(timed) or 'there is none'})", table)
    outcome = view.schema.table(table).outcome
    return Task(
        name=table,
        target=Target(Kind.BINARY, table, event_level=True, column=None if outcome is None else outcome.name),
        splits=Splits(Interval(0, end_us), known_by_us=end_us),
        sampling_plan=SamplingPlan.from_dict({"num_neighbors": list(PLAN_HOPS)}),
    )


def seeds_of(
    view: GraphView, target: Target, labels: Labels | None, *, end_us: int, seed: int, most: int = SEEDS_MAX
) -> Seeds:
    """Return at most `most` seeds of the time before `end_us`, drawn alike from all.

    Raises:
        NotEnoughExamples: there are hardly any.
        ValueError: an entity-level target has no labels, which say when entities are asked about.
    """
    if target.event_level:
        event, known = view.times(target.table)
        row = np.flatnonzero((visible_time_us(event, known) < end_us) & (event != ALWAYS_US))
        time_us = event[row]
        cutoff = cutoff_for_event(time_us)
    else:
        if labels is None:
            raise ValueError("an entity-level task's times come with its labels")
        asked = labels.known(None)
        asked = asked.select(asked.cutoff_time_us < end_us)
        row, time_us, cutoff = asked.row, asked.time_us, asked.cutoff_time_us
    if len(row) < SEEDS_MIN:
        raise NotEnoughExamples(f"{target.table}: {len(row)} rows before the end of the training period")
    if len(row) > most:
        chosen = np.random.default_rng(seed).permutation(len(row))[:most]
        row, time_us, cutoff = row[chosen], time_us[chosen], cutoff[chosen]
    order = np.lexsort((row, time_us))
    return Seeds(row[order], time_us[order], cutoff[order], end_us)

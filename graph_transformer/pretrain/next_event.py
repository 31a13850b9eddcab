"""When an entity's next event comes: the time to the next row of each of its child links, in bins of log time.

the past, up to the cut-off ─► model ─► bin of the time to the next row, or later than all of them
rows until the end of the training period ─► the answer; "not within the period" where there is none
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.clock import log_age
from graph_transformer.encoding.quantile import even_edges
from graph_transformer.finetune.examples import linked_rows
from graph_transformer.pretrain.questions import NOT_ASKED, Answers, Question
from graph_transformer.pretrain.seeds import Seeds
from graph_transformer.target import Target
from temporal_graph.schema import Link
from temporal_graph.time_rule import ALWAYS_US, visible_time_us

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

EDGES_SEEDS = 20_000
"""Seeds whose gaps give the bins."""
NONE_US = -1

Ints = NDArray[np.int64]


class LinkTimes:
    """The event times of a link's children by parent, of rows visible before the end of the period."""

    def __init__(self, view: GraphView, link: Link, end_us: int) -> None:
        event, known = view.times(link.child)
        row = np.flatnonzero((visible_time_us(event, known) < end_us) & (event != ALWAYS_US))
        parent = linked_rows(view, link.child, link.name, row, np.full(len(row), end_us - 1))
        row, parent = row[parent >= 0], parent[parent >= 0]
        self._times, rank = np.unique(event[row], return_inverse=True)
        self._key = np.sort(parent * (len(self._times) + 1) + rank)

    def gap_us(self, parent: Ints, after_us: Ints) -> Ints:
        """Return int64[n]: from a time to the parent's next child, strictly later; NONE_US where none is in time."""
        step = len(self._times) + 1
        found = np.searchsorted(self._key, parent * step + np.searchsorted(self._times, after_us, side="right"))
        key = np.append(self._key, -1)[found]
        same = (found < len(self._key)) & (key // step == parent) & (parent >= 0)
        at = np.append(self._times, 0)[np.where(same, key % step, -1)]
        return np.where(same, at - after_us, NONE_US)


@dataclass(frozen=True)
class NextQuestion:
    """The next row of one link of `entity` int64[seeds]: of the seed itself, or of a row that it points to."""

    question: Question
    times: LinkTimes
    entity: Ints
    edges: NDArray[np.float64]
    end_us: int

    def answers(self, chosen: Ints, after_us: Ints) -> tuple[Ints, Ints]:
        """Return the lowest and the highest possible class of the seeds at these positions, int64[n] each."""
        entity = self.entity[chosen]
        gap = self.times.gap_us(entity, after_us)
        there = gap != NONE_US
        # Without a next row in the period all that is known is how long there was none.
        low = np.searchsorted(self.edges, log_age(np.where(there, gap, self.end_us - after_us)), side="right")
        high = np.where(there, low, self.question.classes - 1)
        asked = entity >= 0
        return np.where(asked, low, NOT_ASKED), np.where(asked, high, NOT_ASKED)


class NextEvents:
    """The next-event questions of a set of seeds."""

    def __init__(self, view: GraphView, target: Target, seeds: Seeds) -> None:
        self._seeds = seeds
        times: dict[str, LinkTimes] = {}
        self._asked = tuple(self._questions(view, target, times))

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is asked, in order."""
        return tuple(asked.question for asked in self._asked)

    def answers(self, chosen: Ints) -> Answers:
        """Return the answers for the seeds at these positions, int64[n, Q] each."""
        after_us = self._seeds.time_us[chosen]
        found = [asked.answers(chosen, after_us) for asked in self._asked]
        empty = np.empty((len(chosen), 0), dtype=np.int64)
        low = np.stack([low for low, _ in found], axis=1) if found else empty
        high = np.stack([high for _, high in found], axis=1) if found else empty
        return Answers(low, high)

    def _questions(self, view: GraphView, target: Target, times: dict[str, LinkTimes]) -> Iterator[NextQuestion]:
        seeds = self._seeds
        for name, parent, entity in _entities(view, target, seeds):
            for link in view.schema.links:
                child = view.schema.table(link.child)
                if link.parent != parent or child.time_column is None or link.child == target.task_table:
                    continue
                if link.forward not in times:
                    times[link.forward] = LinkTimes(view, link, seeds.end_us)
                some = np.arange(0, len(seeds), max(1, len(seeds) // EDGES_SEEDS))
                gap = times[link.forward].gap_us(entity[some], seeds.time_us[some])
                if not (gap != NONE_US).any():
                    continue
                edges = np.array(even_edges(log_age(gap[gap != NONE_US]))[1:])
                question = Question(f"next {link.backward} of {name}", len(edges) + 1)
                yield NextQuestion(question, times[link.forward], entity, edges, seeds.end_us)


def _entities(view: GraphView, target: Target, seeds: Seeds) -> Iterator[tuple[str, str, Ints]]:
    """Yield name, table and row int64[seeds] of what seeds can be asked about: themselves, or what they point to."""
    if not target.event_level:
        yield "the seed", target.table, seeds.row
        return
    for link in view.schema.links:
        if link.child == target.table:
            yield link.name, link.parent, linked_rows(view, link.child, link.name, seeds.row, seeds.cutoff_time_us)

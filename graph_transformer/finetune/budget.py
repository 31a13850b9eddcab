"""Fan-outs that keep questions within a budget of rows: wanted numbers are cut until what is really sampled fits.

branches with the numbers wanted ─► history at one level, details, then descents as far as rows are left ─► numbers
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.finetune.branches import Branch, Role, without_dead_ends
from graph_transformer.finetune.degrees import fan_outs
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.feed import sample
from graph_transformer.target import Target
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

Numbers = dict[tuple[int, str], int]
"""Fan-out by hop and link."""

FOLDED_COST = 0.5
"""A row that completes another is encoded, but nothing attends to it."""
OWN_SHARE = 0.75
"""Of the budget, for what is the question's own, where parents can be gone down again."""
LEVELS = (128, 112, 96, 80, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 10, 8, 6, 5, 4)
DETAIL_WEIGHT = 0.25
"""Details are many times as many as the rows they belong to: they are cut first."""
DESCENTS = (16, 12, 8, 4)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows per question under a plan: mean and p95; `cost` counts rows that complete others in part."""

    mean: float
    p95: float
    cost: float


@dataclass(frozen=True, slots=True)
class Budget:
    """Counts what examples find under numbers, each at its own cut-off, and cuts the numbers to `rows` of cost."""

    view: GraphView
    target: Target
    examples: Examples
    rows: float

    def numbers(self, branches: Iterable[Branch]) -> Numbers:
        """Return the number of every branch that is followed, at most the one wanted."""
        active = [branch for branch in branches if branch.wanted]
        descents = [branch for branch in active if branch.role is Role.DESCENT]
        own = without_dead_ends(self.view.schema, [branch for branch in active if branch.role is not Role.DESCENT])
        share = OWN_SHARE if descents else 1.0
        numbers = self._own(own, share * self.rows)
        # First down to the table that the parents were reached from, then from the parents fewest share.
        up = {branch.source for branch in active if branch.role is Role.FOLD}
        for branch in sorted(descents, key=lambda b: (b.table not in up, b.degrees.share, b.link)):
            numbers = self._with_descent(numbers, branch, active)
        return numbers

    def count(self, numbers: Numbers, folded: Iterable[tuple[int, str]]) -> Rows:
        """Return the rows of the examples' questions; rows reached over the links `folded` cost a part."""
        hops = by_hop(numbers)
        if not hops:
            return Rows(1.0, 1.0, 1.0)
        neighborhood = sample(Sampler(self.view, fan_outs(hops)), self.target, self.examples)
        each = np.diff(neighborhood.seed_offset)
        names = neighborhood.schema.edge_types
        is_folded = np.zeros((len(hops) + 1, len(names) + 1), dtype=bool)
        for hop, link in folded:
            if hop <= len(hops):
                is_folded[hop, names.index(link)] = True
        cheap = int(is_folded[neighborhood.hop, neighborhood.link].sum())
        cost = (len(neighborhood.row) - (1.0 - FOLDED_COST) * cheap) / max(1, len(each))
        return Rows(float(each.mean()), float(np.quantile(each, 0.95)), cost)

    def cost(self, numbers: Numbers, branches: Iterable[Branch]) -> float:
        """Return the cost of a question on average."""
        return self.count(numbers, [branch.key for branch in branches if branch.role is Role.FOLD]).cost

    def _own(self, branches: list[Branch], rows: float) -> Numbers:
        kept = branches
        while True:
            for level in LEVELS:
                numbers = {branch.key: self._at(level, branch, kept) for branch in kept}
                if self.cost(numbers, kept) <= rows:
                    return numbers
            # Not even the least fits: without details, then without far parents; what is left is the node limit's.
            spare = [branch for branch in kept if branch.role is Role.DETAIL]
            spare = spare or [branch for branch in kept if branch.role is Role.FOLD]
            if not spare:
                return numbers
            farthest = max(branch.hop for branch in spare)
            drop = {branch.key for branch in spare if branch.hop == farthest}
            kept = without_dead_ends(self.view.schema, [branch for branch in kept if branch.key not in drop])

    def _at(self, level: int, branch: Branch, branches: list[Branch]) -> int:
        """Return a branch's number at a level: tables with more columns get more of it."""
        if branch.role in (Role.PARENT, Role.FOLD):
            return 1
        columns = len(self.view.schema.table(branch.table).columns)
        most = max(len(self.view.schema.table(b.table).columns) for b in branches if b.role is not Role.FOLD)
        weight = DETAIL_WEIGHT if branch.role is Role.DETAIL else math.sqrt((1 + columns) / (1 + most))
        return max(branch.least, min(branch.wanted, even(level * weight)))

    def _with_descent(self, numbers: Numbers, descent: Branch, active: list[Branch]) -> Numbers:
        """Return the numbers with as much of a descent as fits, and the parent it starts from; else as they are."""
        steps = [b for b in active if b.role is Role.FOLD and (b.hop, b.table) == (descent.hop - 1, descent.source)]
        for number in DESCENTS:
            if number > max(descent.wanted, DESCENTS[-1]):
                continue
            more = numbers | {step.key: 1 for step in steps} | {descent.key: min(number, descent.wanted)}
            if self.cost(more, active) <= self.rows:
                return more
        return numbers


def by_hop(numbers: Numbers) -> list[dict[str, int]]:
    """Return the numbers as one mapping per hop."""
    hops = max((hop for hop, _ in numbers), default=0)
    return [{link: number for (at, link), number in numbers.items() if at == hop} for hop in range(1, hops + 1)]


def even(number: float) -> int:
    """Return a number that reads well: a multiple of four from eight on."""
    return int(number) if number < 8 else int(number) // 4 * 4

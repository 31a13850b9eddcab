"""Fan-outs that keep questions within a budget of rows: what matters most first, counted on what is really sampled.

branches ─► the question's own history, at one level ─► details, far parents, descents, as far as rows are left
                                                    └─► the level again, with what is left then ─► numbers
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.finetune.branches import Branch, Role, informative
from graph_transformer.finetune.degrees import fan_outs
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.feed import sample
from graph_transformer.target import Target
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

Key = tuple[int, str]
Numbers = dict[Key, int]
"""Fan-out by hop and link."""

FOLDED_COST = 0.5
"""A row that completes another is encoded, but nothing attends to it."""
SHARES = {Role.DETAIL: 0.5, Role.DESCENT: 0.75, Role.SIDE: 0.75}
"""Of the budget, for history and what completes it, where there is more to follow: an order without its items says
little, what others did adds to what one did."""
LEVELS = (128, 112, 96, 80, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 10, 8, 6, 5, 4)
EXTRAS = (16, 12, 8, 6, 4, 3, 2, 1)
OUTCOMES_WEIGHT = 2.0
"""Of an event's own table: earlier events of its kind, with their known outcomes, are most of what can be known."""
_ORDER = (Role.DETAIL, Role.FOLD, Role.DESCENT, Role.SIDE)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows per question under a plan: mean and p95; `cost` counts rows that complete others in part."""

    mean: float
    p95: float
    cost: float


@dataclass(frozen=True, slots=True)
class Budget:
    """Counts what examples find under numbers, each at its own cut-off, and keeps the numbers to `rows` of cost."""

    view: GraphView
    target: Target
    examples: Examples
    rows: float

    def numbers(self, branches: Iterable[Branch]) -> Numbers:
        """Return the number of every branch that is followed, at most the one wanted."""
        active = [branch for branch in branches if branch.wanted]
        core = [branch for branch in active if self._is_core(branch, active)]
        extras = [branch for branch in active if branch not in core]
        share = min((SHARES.get(branch.role, 1.0) for branch in extras), default=1.0)
        numbers = self._leveled({}, core, active, share * self.rows)
        here = {branch.table for branch in core if branch.role is Role.HISTORY}
        # Of the descents first those to tables that the question has rows of itself, from parents that few others have.
        for branch in sorted(
            extras, key=lambda b: (_ORDER.index(b.role), b.hop, b.table not in here, b.degrees.share, b.link)
        ):
            if branch.role is not Role.FOLD or informative(self.view.schema, branch.table):
                numbers = self._with(numbers, branch, active)
        return self._leveled(numbers, core, active, self.rows)

    def count(self, numbers: Numbers, folded: Iterable[Key]) -> Rows:
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

    def _is_core(self, branch: Branch, active: list[Branch]) -> bool:
        """Return whether a branch is the question's own: history, parents, and what directly completes its rows."""
        if branch.role in (Role.PARENT, Role.HISTORY):
            return True
        if branch.role is not Role.FOLD or not informative(self.view.schema, branch.table):
            return False
        arrivals = {b.role for b in active if (b.hop, b.table) == (branch.hop - 1, branch.source)}
        return Role.HISTORY in arrivals

    def _leveled(self, numbers: Numbers, core: list[Branch], active: list[Branch], rows: float) -> Numbers:
        """Return the numbers with the core's at the highest level that fits, none lower than it is."""
        kept = core
        while True:
            for level in LEVELS:
                at = {branch.key: self._at(level, branch, kept) for branch in kept}
                found = numbers | {key: max(number, numbers.get(key, 0)) for key, number in at.items()}
                if self.cost(found, active) <= rows:
                    return found
            folds = [branch for branch in kept if branch.role is Role.FOLD]
            if numbers or not folds:
                return numbers or found  # what does not fit at the least is the node limit's
            # Not even the least fits: without the parents that complete most rows.
            widest = max(folds, key=lambda branch: branch.degrees.fresh)
            kept = [branch for branch in kept if branch is not widest]

    def _at(self, level: int, branch: Branch, core: list[Branch]) -> int:
        """Return a branch's number at a level: tables that say more get more of it."""
        if branch.role is not Role.HISTORY:
            return 1
        most = max(self._weight(other) for other in core if other.role is Role.HISTORY)
        return max(branch.least, min(branch.wanted, even(level * self._weight(branch) / most)))

    def _weight(self, branch: Branch) -> float:
        own = self.target.event_level and branch.table == self.target.table
        columns = len(self.view.schema.table(branch.table).columns)
        return math.sqrt(1 + columns) * (OUTCOMES_WEIGHT if own else 1.0)

    def _with(self, numbers: Numbers, extra: Branch, active: list[Branch]) -> Numbers:
        """Return the numbers with as much of a branch as fits, and the parent it starts from; else as they are."""
        steps = [b for b in active if (b.hop, b.table) == (extra.hop - 1, extra.source)]
        if extra.hop > 1 and not any(step.key in numbers for step in steps):
            steps = [step for step in steps if step.role is Role.FOLD and self._reached(numbers, step, active)]
            if not steps:
                return numbers
            numbers_with = numbers | {step.key: 1 for step in steps}
        else:
            numbers_with = numbers
        for number in sorted({min(extra.wanted, number) for number in EXTRAS}, reverse=True):
            if number < extra.least:
                break
            found = numbers_with | {extra.key: number}
            if self.cost(found, active) <= self.rows:
                return found
        return numbers

    @staticmethod
    def _reached(numbers: Numbers, branch: Branch, active: list[Branch]) -> bool:
        """Return whether the rows that a branch starts from are there."""
        return any((b.hop, b.table) == (branch.hop - 1, branch.source) and b.key in numbers for b in active)


def by_hop(numbers: Numbers) -> list[dict[str, int]]:
    """Return the numbers as one mapping per hop."""
    hops = max((hop for hop, _ in numbers), default=0)
    return [{link: number for (at, link), number in numbers.items() if at == hop} for hop in range(1, hops + 1)]


def even(number: float) -> int:
    """Return a number that reads well: a multiple of four from eight on."""
    return int(number) if number < 8 else int(number) // 4 * 4

"""The plan that a schema, its degree statistics and a task suggest, with the reasons, for a person to edit.

training examples ─► branches (what to follow) ─► fan-outs within the budget of rows ─┐
labels ─► model and training that fit their number ───────────────────────────────────┴─► Proposal ─► plan.yaml
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graph_transformer.finetune.branches import Branch, Role, counted, grow, without_dead_ends
from graph_transformer.finetune.budget import Budget, Rows, by_hop
from graph_transformer.finetune.degrees import draw, fan_outs
from graph_transformer.finetune.examples import Labels, examples_of
from graph_transformer.finetune.sizing import Counts, Size, apart, size_of, stale_days
from graph_transformer.plan import ModelPlan
from graph_transformer.splits import Splits
from graph_transformer.target import Target
from graph_transformer.task import Task
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

EXAMPLES = 384
"""Questions that statistics are measured on."""
FITTING_EXAMPLES = 128
"""Questions that a plan's rows are counted on, again and again."""
ROWS: dict[Size, int] = {"cpu": 160, "gpu": 512}
"""Rows of a question, on average: about 2 ms on one core; what a GPU takes without more latency."""
HISTORY_MOST: dict[Size, int] = {"cpu": 64, "gpu": 128}
"""Rows of one parent of an event; twice as many of an entity, which has no other history to share the budget with."""
LIMIT_FACTOR = 2
"""A question may have so many times the rows of an average one."""


@dataclass(frozen=True)
class Proposal:
    """The proposed plan with what it rests on: each branch with the number it got, rows per question, labels."""

    plan: ModelPlan
    branches: tuple[tuple[Branch, int], ...]
    rows: Rows
    counts: Counts
    size: Size
    reasons: dict[str, str]

    def over(self, lay: Callable[[Task], Task], task: Task) -> Proposal:
        """Return the proposal with what a task file says laid over its model and training; that needs no reason."""
        plan = ModelPlan.of(lay(self.plan.apply(task)))
        proposed, given = self.plan.to_dict(), plan.to_dict()
        said = {
            f"{section}.{name}"
            for section in ("model", "training")
            for name, value in given[section].items()
            if value != proposed[section][name]
        }
        return replace(self, plan=plan, reasons={key: why for key, why in self.reasons.items() if key not in said})

    def to_yaml(self) -> str:
        """Return the plan as YAML with the reasons behind the entries."""
        header = (
            f"A model plan for a {self.size.upper()}, proposed from {self.counts.examples:,} labelled examples and",
            f"what they find: {self.rows.mean:.0f} rows a question on average, {self.rows.p95:.0f} at p95.",
        )
        return self.plan.to_yaml(self.reasons, header=header)

    def table(self) -> list[dict[str, Any]]:
        """Return one line per hop and link, those not followed among them."""
        return [
            {
                "hop": branch.hop,
                "link": branch.link,
                "role": branch.role.value,
                "from rows": round(branch.degrees.sources, 1),
                "median": int(branch.degrees.median),
                "p95": int(branch.degrees.p95),
                "most": branch.degrees.maximum,
                "age in days": branch.degrees.age_days,
                "fan-out": number,
                "why": reason(branch, number),
            }
            for branch, number in self.branches
        ]


def propose_plan(
    view: GraphView, target: Target, splits: Splits, labels: Labels, *, size: Size = "cpu", seed: int = 0
) -> ModelPlan:
    """Return the plan of `propose`."""
    return propose(view, target, splits, labels, size=size, seed=seed).plan


def propose(
    view: GraphView, target: Target, splits: Splits, labels: Labels, *, size: Size = "cpu", seed: int = 0
) -> Proposal:
    """Propose a plan; everything is measured on the training split's examples, at their own cut-offs.

    Raises:
        NotEnoughExamples: the training split has no labels, or of one kind only, that are known in time.
    """
    known_by_us = splits.validation.start_us if splits.validation is not None else splits.trained_by_us
    examples = examples_of(labels, target, splits.train, known_by_us=known_by_us)
    # The later half: rows accumulate, and what the model will be asked comes after all of them.
    asked = draw(examples.select(np.arange(len(examples) // 2, len(examples))), EXAMPLES, seed=seed)
    branches = grow(view, target, asked, most=HISTORY_MOST[size] * (1 if target.event_level else 2))
    budget = Budget(view, target, draw(asked, FITTING_EXAMPLES, seed=seed), ROWS[size])
    numbers = budget.numbers(branches)
    left = [branch if numbers.get(branch.key) else replace(branch, wanted=0) for branch in branches]
    reachable = {branch.key for branch in without_dead_ends(view.schema, left)}
    chosen = tuple((branch, numbers.get(branch.key, 0)) for branch in branches if branch.key in reachable)
    numbers = {branch.key: number for branch, number in chosen if number}
    rows = budget.count(numbers, ())
    counts = Counts.of(target, apart(target, examples).label)
    sized = size_of(target, counts, size=size, stale_days=stale_days(splits, newest_us(view, target)))
    # Links that are not followed stand in the plan too, with the reason: a person may know better.
    last = max((hop for hop, _ in numbers), default=1)
    hops = by_hop({branch.key: number for branch, number in chosen if branch.hop <= last}) or [{}]
    reasons = {
        f"sampling_plan.num_neighbors.hop{branch.hop}.{branch.link}": commented(branch, number)
        for branch, number in chosen
    }
    node_limit = LIMIT_FACTOR * ROWS[size]
    reasons["sampling_plan.node_limit"] = (
        f"most rows of one question; {rows.mean:.0f} on average, {rows.p95:.0f} at p95"
    )
    plan = ModelPlan(fan_outs(hops, node_limit=node_limit), sized.model, sized.training)
    return Proposal(plan, chosen, rows, counts, size, reasons | sized.reasons)


def reason(branch: Branch, number: int) -> str:
    """Return why a branch has its number."""
    if branch.wanted and not number:
        return "off: the budget of rows is spent"
    cut = f"{branch.wanted} cut to the budget of rows" if number < branch.wanted else ""
    return ", ".join(part for part in (branch.why, cut) if part)


def commented(branch: Branch, number: int) -> str:
    """Return the reason with the counts it rests on, as the plan's file has it."""
    if branch.role in (Role.PARENT, Role.FOLD):
        return reason(branch, number)
    return "; ".join(part for part in (branch.role.value, counted(branch.degrees), reason(branch, number)) if part)


def newest_us(view: GraphView, target: Target) -> int:
    """Return the newest event time of the graph, past labels left out; ALWAYS_US where nothing has a time."""
    tables = [table.name for table in view.schema.tables if table.time_column and table.name != target.task_table]
    return max((int(view.times(table)[0].max(initial=ALWAYS_US)) for table in tables), default=ALWAYS_US)

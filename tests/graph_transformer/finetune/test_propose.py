"""The proposed plan: the one known to be good for payments, within its budget, with reasons, of training data alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.examples import Examples, TableLabels
from graph_transformer.finetune.propose import HISTORY_MOST, ROWS, newest_us, propose, propose_plan
from graph_transformer.plan import ModelPlan
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task
from temporal_graph.view import GraphView

DAY_US = 86_400_000_000
NOW_US = 1_600_000_000_000_000
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"
OF_TERMINAL = "terminals.terminal_id->transactions.terminal_id"
CLUB = """
version: 1
name: club
tables:
  members:
    primary_key: {member_id: integer}
  visits:
    primary_key: {visit_id: integer}
    time_column: at
    columns: {minutes: numerical}
    links: {member_id: members}
  churn:
    primary_key: {member_id: integer, anchor_time_us: integer}
    time_column: anchor_time
    known_time: {column: known_time}
    columns: {label: {kind: boolean, outcome: true}}
    links: {member_id: members}
"""
CHURN = Target(Kind.BINARY, "members", event_level=False, horizon_us=DAY_US, task_table="churn")


def test_payments_get_the_plan_that_is_known_to_be_good(world: Any, task: Task) -> None:
    """Both parents, the last 64 payments of each, nothing else; a model for few frauds."""
    proposal = propose(world.view, task.target, task.splits, world.labels(task))
    first, second = proposal.plan.sampling_plan.num_neighbors
    assert dict(first.links)["transactions.customer_id->customers.customer_id"] == 1
    assert dict(first.links)["transactions.terminal_id->terminals.terminal_id"] == 1
    assert dict(second.links) == {OF_CUSTOMER: 64, OF_TERMINAL: 64}
    assert (first.default, second.default) == (0, 0)
    assert proposal.rows.mean <= 131
    assert proposal.plan.sampling_plan.node_limit == 2 * ROWS["cpu"]
    proposal.plan.check(world.view.schema)
    wide = propose_plan(world.view, task.target, task.splits, world.labels(task), size="gpu")
    assert 64 < dict(wide.sampling_plan.num_neighbors[1].links)[OF_CUSTOMER] <= HISTORY_MOST["gpu"]


def test_the_file_says_why_and_is_the_plan(world: Any, task: Task) -> None:
    """YAML with counts and reasons, read back as the plan; the table has a line for each link with what was found."""
    proposal = propose(world.view, task.target, task.splits, world.labels(task))
    text = proposal.to_yaml()
    assert ModelPlan.from_yaml(text) == proposal.plan
    assert f"{proposal.counts.examples:,} labelled examples" in text
    line = next(line for line in text.splitlines() if OF_CUSTOMER in line)
    found = next(row for row in proposal.table() if row["link"] == OF_CUSTOMER)
    assert f"median {found['median']}, p95 {found['p95']}, most {found['most']}" in line
    assert found["fan-out"] == 64
    assert found["median"] < found["p95"] <= found["most"]


def test_what_the_task_says_is_kept(world: Any, task: Task) -> None:
    """An option of the task's own stands in the file without a reason for another value; the others are proposed."""
    proposal = propose(world.view, task.target, task.splits, world.labels(task))
    told = proposal.over(lambda found: replace(found, model=replace(found.model, width=24, heads=4)), task)
    assert (told.plan.model.width, told.plan.model.layers) == (24, proposal.plan.model.layers)
    assert told.plan.sampling_plan == proposal.plan.sampling_plan
    assert "model.width" in proposal.reasons
    assert "model.width" not in told.reasons


def test_equal_seeds_propose_the_same(world: Any, task: Task) -> None:
    """The whole proposal, reasons included."""
    once, again = (propose(world.view, task.target, task.splits, world.labels(task), seed=3) for _ in range(2))
    assert once == again


def test_nothing_after_the_training_split_matters(world: Any, task: Task, grow: Callable, payments_schema: Any) -> None:
    """Reports that lie from the validation's start on change nothing; those before do change the number of frauds."""
    proposal = propose(world.view, task.target, task.splits, world.labels(task))
    assert task.splits.validation is not None
    middle_us = (task.splits.train.start_us + task.splits.train.end_us) // 2
    for lie_from_us, same in ((task.splits.validation.start_us + 1, True), (middle_us, False)):
        lying = grow(payments_schema, lie_from_us=lie_from_us)
        found = propose(lying.view, task.target, task.splits, lying.labels(task))
        assert (found == proposal) == same
        assert found.branches == proposal.branches
        lying.graph.close()


def club(plant: Callable) -> tuple[GraphView, TableLabels]:
    """Thirty members with a visit a day and weekly labels."""
    rows: list[tuple] = [
        ("visits", 100 * member + day, NOW_US + day * DAY_US, {"minutes": 1.0, "member_id": member})
        for member in range(30)
        for day in range(50)
    ]
    view = plant(CLUB, rows)
    row, time = (
        np.tile(view.row_index("members", list(range(30))), 6),
        np.repeat(NOW_US + np.arange(6) * 7 * DAY_US, 30),
    )
    label = np.random.default_rng(0).integers(0, 2, len(row)).astype(np.float32)
    return view, TableLabels(Examples(row, time, time, time + DAY_US, label))


def test_past_labels_of_an_entity_are_followed(plant: Callable) -> None:
    """The task table is a history like others, even before it has rows; no row later than training is counted."""
    view, labels = club(plant)
    splits = Splits(Interval(NOW_US, NOW_US + 30 * DAY_US), Interval(NOW_US + 35 * DAY_US, NOW_US + 40 * DAY_US))
    proposal = propose(view, CHURN, splits, labels)
    links = dict(proposal.plan.sampling_plan.num_neighbors[0].links)
    assert links["members.member_id->churn.member_id"] == 4
    visits = next(row for row in proposal.table() if row["link"] == "members.member_id->visits.member_id")
    assert visits["most"] == 29  # days 0 to 28: what the last training anchor sees
    assert links[visits["link"]] >= 28


def test_the_newest_row_is_not_a_past_label(plant: Callable) -> None:
    """Rows of the task table do not make a graph look fresh."""
    view, _ = club(plant)
    assert newest_us(view, CHURN) == NOW_US + 49 * DAY_US
    assert newest_us(view, replace(CHURN, task_table=None)) == NOW_US + 49 * DAY_US


def test_a_split_without_labels_is_refused(world: Any, task: Task) -> None:
    """There is nothing to measure before the first label."""
    empty = replace(task.splits, train=Interval(0, 1))
    with pytest.raises(NotEnoughExamples):
        propose(world.view, task.target, empty, world.labels(task))

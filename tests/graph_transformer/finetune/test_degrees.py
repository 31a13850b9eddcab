"""Degrees are what questions find at their own cut-offs: nothing later, nothing not yet known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.finetune.degrees import NOTHING, WIDE, draw, fan_outs, measure
from graph_transformer.finetune.examples import Examples
from graph_transformer.target import Kind, Target
from online_sampler.plan import NODE_LIMIT_MAX, SamplingPlan, Strategy

DAY_US = 86_400_000_000
NOW_US = 1_600_000_000_000_000
SHOP = """
version: 1
name: shop
tables:
  regions:
    primary_key: {region_id: integer}
  customers:
    primary_key: {customer_id: integer}
    links: {region_id: regions}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns: {total: numerical}
    links: {customer_id: customers}
"""
ORDERS = "customers.customer_id->orders.customer_id"
REGION = "customers.region_id->regions.region_id"
OF_REGION = "regions.region_id->customers.region_id"
TARGET = Target(Kind.BINARY, "customers", event_level=False)


def asked(rows: list[int], cutoffs: list[int]) -> Examples:
    """Questions about customers at these times."""
    times = np.array(cutoffs, dtype=np.int64)
    return Examples(np.array(rows, dtype=np.int64), times, times, times, np.zeros(len(rows), dtype=np.float32))


def orders(customer: int, times: list[int], first: int = 0) -> list[tuple]:
    """Orders of a customer."""
    return [("orders", first + n, at, {"total": 1.0, "customer_id": customer}) for n, at in enumerate(times)]


def test_counts_are_those_of_the_cut_off(plant: Callable) -> None:
    """A row at the cut-off counts, one a microsecond later does not, nor one known later, nor another customer's."""
    late = ("orders", 9, NOW_US - 5, {"total": 1.0, "customer_id": 1}, NOW_US + 1)
    view = plant(SHOP, [*orders(1, [NOW_US - DAY_US, NOW_US, NOW_US + 1]), late, *orders(2, [NOW_US - 1], 20)])
    row = int(view.row_index("customers", [1])[0])
    found = measure(view, TARGET, asked([row], [NOW_US]), [], [ORDERS])[ORDERS]
    assert (found.median, found.maximum, found.sources) == (2, 2, 1)
    assert found.age_days == pytest.approx(0.5)
    later = measure(view, TARGET, asked([row], [NOW_US + 1]), [], [ORDERS])[ORDERS]
    assert later.maximum == 4


def test_quantiles_are_over_questions_and_empty_ones_count(plant: Callable) -> None:
    """Of ten customers nine have one order and one has thirty; a customer before its first order counts as none."""
    rows = [row for c in range(9) for row in orders(c, [NOW_US], 100 * c)]
    rows += orders(9, [NOW_US - n for n in range(30)], 5000)
    view = plant(SHOP, rows)
    all_of = [int(row) for row in view.row_index("customers", list(range(10)))]
    found = measure(view, TARGET, asked(all_of, [NOW_US] * 10), [], [ORDERS])[ORDERS]
    assert (found.median, found.p90, found.p95, found.maximum) == (1, 30, 30, 30)
    before = measure(view, TARGET, asked(all_of, [NOW_US - DAY_US] * 10), [], [ORDERS])[ORDERS]
    assert before.empty
    assert before.age_days is None


def test_a_hub_is_counted_no_further_than_wide(plant: Callable) -> None:
    """A customer with more orders than are counted shows the bound."""
    view = plant(SHOP, orders(1, [NOW_US - n for n in range(WIDE + 50)]))
    assert measure(view, TARGET, asked([0], [NOW_US]), [], [ORDERS])[ORDERS].maximum == WIDE


def test_share_says_how_many_questions_meet_at_a_row(plant: Callable) -> None:
    """One region for all is shared by all; a region each by nobody, though asked about twice."""
    one = plant(SHOP, [("customers", c, None, {"region_id": 7}) for c in range(20)])
    own = plant(SHOP, [("customers", c, None, {"region_id": c}) for c in range(20)])
    for view, share in ((one, 1.0), (own, 0.0)):
        questions = asked(list(range(20)) * 2, [NOW_US] * 20 + [NOW_US + 1] * 20)
        found = measure(view, TARGET, questions, [{REGION: 1}], [OF_REGION])[OF_REGION]
        assert found.share == share
        assert found.sources == 1
    assert measure(one, TARGET, asked([0], [NOW_US]), [{REGION: 0}], [OF_REGION])[OF_REGION] == NOTHING


def test_large_measurements_go_in_parts(plant: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows a call give the same numbers as one call."""
    view = plant(SHOP, [row for c in range(60) for row in orders(c, [NOW_US] * (c % 7), 100 * c)])
    questions = asked([int(row) for row in view.row_index("customers", list(range(1, 50)))], [NOW_US] * 49)
    whole = measure(view, TARGET, questions, [], [ORDERS])
    monkeypatch.setattr("graph_transformer.finetune.degrees.ROWS_MAX", 20)
    assert measure(view, TARGET, questions, [], [ORDERS]) == whole


def test_a_draw_is_a_part_in_order_and_the_same_again() -> None:
    """At most so many, by time, equal for equal seeds."""
    questions = asked(list(range(100)), [NOW_US + n for n in range(100)])
    part = draw(questions, 10, seed=3)
    assert len(part) == 10
    assert (np.diff(part.time_us) > 0).all()
    assert (draw(questions, 10, seed=3).row == part.row).all()
    assert len(draw(questions, 1000)) == 100


def test_fan_outs_take_what_is_named_and_nothing_else() -> None:
    """Links that are not named are off, the newest rows are taken, and hops can be read back from YAML."""
    plan = fan_outs([{ORDERS: 8}, {}])
    assert plan.hops == 2
    assert (plan.num_neighbors[0].of(ORDERS), plan.num_neighbors[0].of(REGION)) == (8, 0)
    assert {hop.default for hop in plan.strategy} == {Strategy.MOST_RECENT}
    assert plan.node_limit == NODE_LIMIT_MAX
    assert SamplingPlan.from_dict(plan.to_dict()) == plan


def test_fresh_rows_are_those_that_no_earlier_hop_reached(plant: Callable) -> None:
    """From a region down again: twenty customers, of them one is the question's own; its region leads to one row."""
    view = plant(SHOP, [("customers", c, None, {"region_id": 7}) for c in range(20)])
    up = measure(view, TARGET, asked([0], [NOW_US]), [], [REGION])[REGION]
    assert (up.targets, up.fresh) == (1, 1)
    down = measure(view, TARGET, asked([0], [NOW_US]), [{REGION: 1}], [OF_REGION])[OF_REGION]
    assert down.fresh == 19
    assert down.targets - down.fresh in (0, 1)  # whether the way back is an edge is the sampler's affair

"""The plan says exactly what is sampled, and a plan that cannot be followed says where."""

from __future__ import annotations

import pytest

from online_sampler import PerLink, PlanError, SamplingPlan, Strategy
from online_sampler.plan import FAN_OUT_MAX, HALF_LIFE_DEFAULT, HOPS_MAX, NODE_LIMIT_DEFAULT, NODE_LIMIT_MAX

PLAN = """
num_neighbors:
  - hop1: {default: 16, CUSTOMERS.CUSTOMER_ID->TRANSACTIONS.CUSTOMER_ID: 128}
  - hop2: {default: 8, TRANSACTIONS.TERMINAL_ID->TERMINALS.TERMINAL_ID: 0}
"""


def hops(*numbers: object) -> dict[str, object]:
    """A plan of these hops and nothing else."""
    return {"num_neighbors": [{f"hop{index + 1}": number} for index, number in enumerate(numbers)]}


def test_the_fields_format_is_read_as_written() -> None:
    """Fan-outs per hop with per-link overrides parse to one number for every link, 0 among them."""
    plan = SamplingPlan.from_yaml(PLAN)
    assert plan.hops == 2
    assert plan.num_neighbors[0].of("CUSTOMERS.CUSTOMER_ID->TRANSACTIONS.CUSTOMER_ID") == 128
    assert plan.num_neighbors[0].of("TRANSACTIONS.TERMINAL_ID->TERMINALS.TERMINAL_ID") == 16
    assert plan.num_neighbors[1].of("TRANSACTIONS.TERMINAL_ID->TERMINALS.TERMINAL_ID") == 0
    assert plan.num_neighbors[1].of("anything else") == 8


def test_what_is_not_said_has_a_default() -> None:
    """Without strategy, half-life and limit a plan takes the most recent rows, up to the default limit."""
    plan = SamplingPlan.from_yaml(PLAN)
    assert plan.strategy == (PerLink(Strategy.MOST_RECENT),) * 2
    assert plan.half_life == (PerLink(HALF_LIFE_DEFAULT),) * 2
    assert plan.node_limit == NODE_LIMIT_DEFAULT


def test_strategy_and_half_life_vary_by_link_and_hop() -> None:
    """Both may be one value, a mapping for all hops, or a list of hops."""
    whole = SamplingPlan.from_dict({**hops(4, 4), "strategy": "uniform", "half_life": 10})
    assert whole.strategy == (PerLink(Strategy.UNIFORM),) * 2
    assert whole.half_life == (PerLink(10.0),) * 2
    mapped = SamplingPlan.from_dict({**hops(4, 4), "strategy": {"a.b->c.d": "uniform"}, "half_life": {"a.b->c.d": 3}})
    assert [hop.of("a.b->c.d") for hop in mapped.strategy] == [Strategy.UNIFORM] * 2
    assert [hop.of("other") for hop in mapped.strategy] == [Strategy.MOST_RECENT] * 2
    assert mapped.half_life[1].of("a.b->c.d") == 3.0
    listed = SamplingPlan.from_dict({**hops(4, 4), "strategy": [{"hop1": "uniform"}, {"hop2": "recency_weighted"}]})
    assert [hop.default for hop in listed.strategy] == [Strategy.UNIFORM, Strategy.RECENCY_WEIGHTED]


def test_a_plan_survives_being_written_down() -> None:
    """What to_dict writes, from_dict reads back to the same plan: a checkpoint carries it."""
    plan = SamplingPlan.from_dict(
        {
            **hops({"default": 3, "a.b->c.d": 0}, 9),
            "strategy": {"default": "recency_weighted", "a.b->c.d": "uniform"},
            "half_life": [{"hop1": 2}, {"hop2": {"default": 7, "a.b->c.d": 0.5}}],
            "node_limit": 100,
        }
    )
    assert SamplingPlan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ([], "plan"),
        ({}, "num_neighbors"),
        ({"num_neighbours": []}, "plan.num_neighbours"),
        ({"num_neighbors": []}, "num_neighbors"),
        ({"num_neighbors": {"hop1": 3}}, "num_neighbors"),
        ({"num_neighbors": [{"hop2": {"default": 1}}]}, "num_neighbors[0]"),
        ({"num_neighbors": [{"hop1": 1, "hop2": 1}]}, "num_neighbors[0]"),
        (hops({"a.b->c.d": 4}), "num_neighbors.hop1.default"),
        (hops({"default": -1}), "num_neighbors.hop1.default"),
        (hops({"default": 1, "a.b->c.d": 1.5}), "num_neighbors.hop1.a.b->c.d"),
        (hops(True), "num_neighbors.hop1"),
        ({**hops(1), "strategy": "newest"}, "strategy"),
        ({**hops(1), "strategy": {"a.b->c.d": "newest"}}, "strategy.a.b->c.d"),
        ({**hops(1, 1), "strategy": [{"hop1": "uniform"}]}, "strategy"),
        ({**hops(1), "half_life": 0}, "half_life"),
        ({**hops(1), "node_limit": 0}, "node_limit"),
    ],
)
def test_every_refusal_names_the_place(data: object, path: str) -> None:
    """An entry that cannot be followed raises with the path that leads to it."""
    with pytest.raises(PlanError) as refused:
        SamplingPlan.from_dict(data)
    assert refused.value.path == path
    assert refused.value.expected


def test_text_that_is_no_yaml_is_a_plan_error() -> None:
    """A syntax error is reported as the plan's, not as a parser's traceback."""
    with pytest.raises(PlanError, match="YAML"):
        SamplingPlan.from_yaml("num_neighbors: [")


def test_limits_hold_on_both_sides() -> None:
    """Eight hops, the widest fan-out and the largest node limit are accepted; one more is not."""
    assert SamplingPlan.from_dict(hops(*[1] * HOPS_MAX)).hops == HOPS_MAX
    assert SamplingPlan.from_dict(hops(FAN_OUT_MAX)).num_neighbors[0].default == FAN_OUT_MAX
    assert SamplingPlan.from_dict({**hops(1), "node_limit": NODE_LIMIT_MAX}).node_limit == NODE_LIMIT_MAX
    for beyond in (hops(*[1] * (HOPS_MAX + 1)), hops(FAN_OUT_MAX + 1), {**hops(1), "node_limit": NODE_LIMIT_MAX + 1}):
        with pytest.raises(PlanError):
            SamplingPlan.from_dict(beyond)

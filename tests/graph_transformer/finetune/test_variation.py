"""Plans around a plan: the start is the plan itself, every proposal is a valid plan, descents can be left out."""

from __future__ import annotations

import optuna
import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.finetune.variation import Variation, descents_of
from graph_transformer.plan import ModelPlan
from graph_transformer.training import Training
from online_sampler.plan import SamplingPlan
from temporal_graph.schema import Schema, parse_schema

SHOP = """
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
  shops:
    primary_key: {shop_id: integer}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    links: {customer_id: customers, shop_id: shops}
"""
ORDERS, SHOP_OF, AGAIN = (
    "customers.customer_id->orders.customer_id",
    "orders.shop_id->shops.shop_id",
    "shops.shop_id->orders.shop_id",
)


@pytest.fixture
def schema() -> Schema:
    """Orders of customers at shops."""
    return parse_schema(SHOP)


@pytest.fixture
def plan() -> ModelPlan:
    """A customer's orders, their shops, and the shops' other orders; asked of graphs that have ended."""
    hops = [
        {"hop1": {"default": 0, ORDERS: 32}},
        {"hop2": {"default": 0, SHOP_OF: 1}},
        {"hop3": {"default": 0, AGAIN: 8}},
    ]
    sampling = SamplingPlan.from_dict({"num_neighbors": hops, "node_limit": 320})
    training = Training(steps=400, weight_decay=0.05, staleness_share=0.3, staleness_days=90)
    return ModelPlan(sampling, ModelConfig(width=48, layers=2), training)


def test_the_start_is_the_plan_itself(plan: ModelPlan, schema: Schema) -> None:
    """Its values give the very plan, nothing changed, at cost 1; the search begins there."""
    variation = Variation.around(plan, schema)
    assert variation.plan(variation.start()) is plan
    assert variation.changes(variation.start()) == {}
    assert variation.cost(variation.start()) == 1.0
    study = optuna.create_study()
    study.enqueue_trial(variation.start())
    assert variation.suggest(study.ask()) == variation.start()


def test_every_proposal_is_a_valid_plan_that_can_be_written(plan: ModelPlan, schema: Schema) -> None:
    """A hundred random proposals are plans of the schema, and survive YAML."""
    variation = Variation.around(plan, schema)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    widths = set()
    for _ in range(100):
        values = variation.suggest(study.ask())
        found = variation.plan(values)
        found.check(schema)
        assert ModelPlan.from_yaml(found.to_yaml()) == found
        assert found.training.evaluate_every <= found.training.steps
        widths.add(found.model.width)
    assert widths == {32, 48, 64, 96}


def test_fan_outs_scale_and_parents_stay(plan: ModelPlan, schema: Schema) -> None:
    """Twice the fan-outs doubles numbers and the limit, not the link to a parent; half of them keeps the limit."""
    variation = Variation.around(plan, schema)
    double = variation.plan(variation.start() | {"fan_outs": 2.0}).sampling_plan
    assert [hop.of(link) for hop, link in zip(double.num_neighbors, (ORDERS, SHOP_OF, AGAIN), strict=True)] == [
        64,
        1,
        16,
    ]
    assert double.node_limit == 640
    half = variation.plan(variation.start() | {"fan_outs": 0.5})
    assert half.sampling_plan.num_neighbors[0].of(ORDERS) == 16
    assert half.sampling_plan.node_limit == 320
    assert variation.changes(variation.start() | {"fan_outs": 0.5}) == {"fan_outs": "x0.5"}


def test_descents_are_found_and_can_be_left_out(plan: ModelPlan, schema: Schema) -> None:
    """The shops' other orders are a descent; without it the rest of the plan is the same."""
    assert descents_of(plan.sampling_plan, schema) == {(3, AGAIN)}
    variation = Variation.around(plan, schema)
    without = variation.plan(variation.start() | {"descents": False}).sampling_plan
    assert without.num_neighbors[2].of(AGAIN) == 0
    assert without.num_neighbors[:2] == plan.sampling_plan.num_neighbors[:2]
    event = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 64}}]})
    assert descents_of(event, schema) == frozenset()
    flat = Variation.around(ModelPlan(event, plan.model, Training()), schema)
    assert not {"descents", "staleness_share"} & set(flat.start())


def test_changes_name_what_the_plan_says_in_the_end(plan: ModelPlan, schema: Schema) -> None:
    """Factors appear as the rate, decay and steps they come to."""
    variation = Variation.around(plan, schema)
    values = variation.start() | {"width": 64, "steps": 1.5, "learning_rate": 0.5, "staleness_share": 0.0}
    assert variation.changes(values) == {"width": 64, "steps": 600, "learning_rate": 1e-3, "staleness_share": 0.0}
    assert variation.cost(values) == pytest.approx(1.5 * (0.5 + 0.5 * 64 / 48))

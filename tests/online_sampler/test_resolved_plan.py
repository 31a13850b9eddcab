"""A plan is laid over a schema's links cell by cell, and a link that is not there is named with its nearest."""

from __future__ import annotations

import numpy as np
import pytest

from online_sampler import PlanError, SamplingPlan
from online_sampler.resolved_plan import resolve

EDGE_TYPES = ("pays.shop->shops.id", "shops.id->pays.shop", "pays.user->users.id", "users.id->pays.user")


def test_every_cell_has_its_number() -> None:
    """Arrays are [hops, edge types] in the schema's order, overrides in their own cells only."""
    plan = SamplingPlan.from_dict(
        {
            "num_neighbors": [{"hop1": {"default": 5, EDGE_TYPES[3]: 9}}, {"hop2": {"default": 2, EDGE_TYPES[0]: 0}}],
            "strategy": {"default": "uniform", EDGE_TYPES[1]: "recency_weighted"},
            "half_life": {EDGE_TYPES[1]: 4},
        }
    )
    resolved = resolve(plan, EDGE_TYPES)
    assert resolved.num_neighbors.tolist() == [[5, 5, 5, 9], [0, 2, 2, 2]]
    assert resolved.strategy.tolist() == [[1, 2, 1, 1]] * 2
    assert resolved.half_life.tolist() == [[32, 4, 32, 32]] * 2
    assert resolved.num_neighbors.dtype == np.int32
    assert resolved.strategy.dtype == np.uint8


@pytest.mark.parametrize("field", ["num_neighbors", "strategy", "half_life"])
def test_an_unknown_link_is_named_with_the_nearest(field: str) -> None:
    """A misspelt link raises in whichever field it stands, and the message offers the schema's nearest name."""
    wrong = "users.id->pays.usr"
    values: dict[str, object] = {"num_neighbors": 3, "strategy": "uniform", "half_life": 2}
    data: dict[str, object] = {"num_neighbors": [{"hop1": {"default": 1}}]}
    mapping = {"default": values[field], wrong: values[field]}
    data[field] = [{"hop1": mapping}]
    with pytest.raises(PlanError) as refused:
        resolve(SamplingPlan.from_dict(data), EDGE_TYPES)
    assert refused.value.path == f"{field}.hop1.{wrong}"
    assert EDGE_TYPES[3] in refused.value.expected


def test_a_schema_without_links_still_takes_a_plan() -> None:
    """Without links there is nothing to follow and nothing to complain about; a named link has no nearest."""
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": 4}]})
    assert resolve(plan, ()).num_neighbors.shape == (1, 0)
    with pytest.raises(PlanError, match="the schema has none"):
        resolve(SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 4, "a->b": 1}}]}), ())

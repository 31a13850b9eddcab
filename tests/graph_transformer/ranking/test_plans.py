"""Plans of a ranking: the history and what it points to, never other users' rows."""

from __future__ import annotations

import numpy as np

from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.plans import default_plan, item_plan
from online_sampler.sampler import Sampler
from temporal_graph.schema import parse_schema

from .conftest import TARGET, Shop


def tables_of(shop: Shop, sampler: Sampler, table: str, cutoff_time_us: int) -> list[str]:
    """The tables of the rows around row 0, by name."""
    found = sampler.sample_rows(table, np.array([0]), np.array([cutoff_time_us]), as_of=True)
    return sorted(shop.view.schema.tables[at].name for at in found.table)


def test_a_user_has_the_newest_orders_their_items_and_the_items_kinds(shop: Shop) -> None:
    """As many orders as the history is long, and one user: no hop leads from an item back to others' orders."""
    plan = default_plan(shop.view.schema, TARGET, RankingConfig(tower_history=3))
    found = tables_of(shop, Sampler(shop.view, plan), "users", 1000)
    assert [found.count(name) for name in ("users", "orders")] == [1, 3]
    assert 1 <= found.count("items") <= 3
    assert 1 <= found.count("kinds") <= 2


def test_an_item_has_what_it_points_to(shop: Shop) -> None:
    """Its kind, and none of the orders that point to it."""
    plan = item_plan(shop.view.schema, "items")
    assert tables_of(shop, Sampler(shop.view, plan), "items", 1000) == ["items", "kinds"]


def test_hops_that_lead_nowhere_are_left_out() -> None:
    """Items that point to nothing end the plan at the second hop; an item's own plan has a seed alone."""
    schema = parse_schema(
        "version: 1\nname: bare\ntables:\n  users: {primary_key: {user_id: integer}}\n"
        "  items: {primary_key: {item_id: string}}\n  orders:\n    primary_key: {order_id: integer}\n"
        "    time_column: at\n    links: {user_id: users, item_id: items}\n"
    )
    assert default_plan(schema, TARGET, RankingConfig()).hops == 2
    assert all(not hop.links and hop.default == 0 for hop in item_plan(schema, "items").num_neighbors)

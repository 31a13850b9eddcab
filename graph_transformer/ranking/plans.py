"""What is sampled for a ranking: around a user its newest interactions and their items, around an item its parents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graph_transformer.ranking.config import RankingConfig
from graph_transformer.target import Target
from online_sampler.plan import SamplingPlan

if TYPE_CHECKING:
    from temporal_graph.schema import Schema

ITEM_HOPS = 2
"""Links followed from an item to rows it points to: its category, and the category's own."""


def default_plan(schema: Schema, target: Target, config: RankingConfig) -> SamplingPlan:
    """Return the plan of a ranking whose task has none.

    Hop 1: the user's newest interactions, and what the user points to. Hop 2: what they point to, the item among it.
    Hop 3: what the item points to.
    """
    ranked = target.ranked
    assert ranked is not None
    interactions = schema.table(ranked.interactions)
    history = interactions.link(ranked.user_link).backward
    first = _parents(schema, target.table) | {history: config.tower_history}
    second = _parents(schema, ranked.interactions)
    second.pop(interactions.link(ranked.user_link).forward, None)
    hops = [first, second, _parents(schema, ranked.items)]
    while len(hops) > 1 and not hops[-1]:
        hops.pop()
    return _plan(hops)


def item_plan(schema: Schema, items: str) -> SamplingPlan:
    """Return the plan of an item's own vector: the rows it points to, and nothing that points to it."""
    hops: list[dict[str, int]] = []
    tables = {items}
    for _ in range(ITEM_HOPS):
        links = [link for table in tables for link in schema.table(table).links]
        hops.append({link.forward: 1 for link in links})
        tables = {link.parent for link in links}
    return _plan(hops)


def _parents(schema: Schema, table: str) -> dict[str, int]:
    return {link.forward: 1 for link in schema.table(table).links}


def _plan(hops: list[dict[str, int]]) -> SamplingPlan:
    numbers: list[dict[str, Any]] = [
        {f"hop{index}": {"default": 0, **links}} for index, links in enumerate(hops, start=1)
    ]
    return SamplingPlan.from_dict({"num_neighbors": numbers})

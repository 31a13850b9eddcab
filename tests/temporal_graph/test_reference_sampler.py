"""The twin's sampler on a graph drawn by hand."""

from __future__ import annotations

from typing import Any

import pytest

from temporal_graph.reference import ReferenceEvent, ReferenceGraph
from temporal_graph.reference_sampler import ReferenceNeighborhood, ReferencePlan, sample_most_recent
from temporal_graph.schema_parse import parse_schema

# customers 1 and 2, shops 5 and 6; payments by number:
#   10: customer 1, shop 5, at 100        12: customer 1, shop 5, at 300
#   11: customer 1, shop 6, at 200        13: customer 2, shop 5, at 300
SCHEMA = parse_schema("""
version: 1
name: payments
tables:
  customers: {primary_key: {customer_id: integer}}
  shops: {primary_key: {shop_id: integer}}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    links: {customer_id: customers, shop_id: shops}
""")
OF_CUSTOMER = "customers.customer_id->payments.customer_id"
OF_SHOP = "shops.shop_id->payments.shop_id"
TO_CUSTOMER = "payments.customer_id->customers.customer_id"
TO_SHOP = "payments.shop_id->shops.shop_id"


@pytest.fixture
def graph() -> ReferenceGraph:
    """The graph drawn above."""
    graph = ReferenceGraph(SCHEMA)
    rows = [(10, 100, 1, 5), (11, 200, 1, 6), (12, 300, 1, 5), (13, 300, 2, 5)]
    graph.apply(
        ReferenceEvent("payments", "insert", (key,), at, at, {"customer_id": customer, "shop_id": shop})
        for key, at, customer, shop in rows
    )
    return graph


def sample(
    graph: ReferenceGraph, seed: tuple[str, int], cutoff_us: int, *hops: dict[str, int], **options: Any
) -> ReferenceNeighborhood:
    """The neighborhood of one seed."""
    seed_cells = [options.pop("cells", None)]
    plan = ReferencePlan(hops, **options)
    return sample_most_recent(graph, [(seed[0], (seed[1],))], plan, [cutoff_us], seed_cells=seed_cells)[0]


def rows(found: ReferenceNeighborhood) -> list[tuple[str, Any, int]]:
    """(table, key, hop) of each node."""
    return [(node.table, node.key[0], node.hop) for node in found.nodes]


def test_children_newest_first(graph: ReferenceGraph) -> None:
    """The newest k children at the cut-off, ties by the higher key first; one microsecond earlier, one fewer."""
    assert rows(sample(graph, ("customers", 1), 300, {"default": 2}))[1:] == [("payments", 12, 1), ("payments", 11, 1)]
    assert rows(sample(graph, ("customers", 1), 299, {"default": 2}))[1:] == [("payments", 11, 1), ("payments", 10, 1)]
    assert rows(sample(graph, ("shops", 5), 300, {"default": 2}))[1:] == [("payments", 13, 1), ("payments", 12, 1)]
    assert rows(sample(graph, ("customers", 1), 99, {"default": 2}))[1:] == []


def test_a_row_is_in_once_and_edges_say_the_rest(graph: ReferenceGraph) -> None:
    """Two payments of one shop give one shop node and two edges; the seed is never reached again."""
    found = sample(graph, ("customers", 1), 300, {"default": 9}, {"default": 9})
    assert rows(found) == [
        ("customers", 1, 0),
        ("payments", 12, 1),
        ("payments", 11, 1),
        ("payments", 10, 1),
        ("shops", 5, 2),
        ("shops", 6, 2),
    ]
    assert found.edges == [
        (0, 1, OF_CUSTOMER),
        (0, 2, OF_CUSTOMER),
        (0, 3, OF_CUSTOMER),
        (1, 4, TO_SHOP),
        (2, 5, TO_SHOP),
        (3, 4, TO_SHOP),
    ]
    assert [node.parent for node in found.nodes] == [-1, 0, 0, 0, 1, 2]


def test_a_payment_scored_does_not_see_itself(graph: ReferenceGraph) -> None:
    """At its own cut-off, and even after it, the seed's row is passed over and does not count towards k."""
    cells = graph.first_version("payments", (12,))
    found = sample(graph, ("payments", 12), 299, {"default": 1}, {"default": 1}, cells=cells)
    assert rows(found) == [
        ("payments", 12, 0),
        ("customers", 1, 1),
        ("shops", 5, 1),
        ("payments", 11, 2),
        ("payments", 10, 2),
    ]
    later = sample(graph, ("payments", 12), 300, {"default": 1}, {OF_CUSTOMER: 1, OF_SHOP: 1})
    assert rows(later)[3:] == [("payments", 11, 2), ("payments", 13, 2)]


def test_a_row_already_in_counts(graph: ReferenceGraph) -> None:
    """With k = 1 the shop's newest payment is already in: it gives an edge, and no older one takes its place."""
    found = sample(graph, ("customers", 2), 300, {"default": 1}, {"default": 1}, {"default": 1})
    assert rows(found) == [("customers", 2, 0), ("payments", 13, 1), ("shops", 5, 2)]
    assert found.edges[-1] == (2, 1, OF_SHOP)


def test_zero_switches_a_link_off(graph: ReferenceGraph) -> None:
    """Both directions stop at 0; parents are followed by any other number."""
    hops = ({"default": 1, TO_SHOP: 0}, {"default": 0, OF_CUSTOMER: 3})
    cells = graph.first_version("payments", (12,))
    assert rows(sample(graph, ("payments", 12), 299, *hops, cells=cells)) == [
        ("payments", 12, 0),
        ("customers", 1, 1),
        ("payments", 11, 2),
        ("payments", 10, 2),
    ]


def test_the_node_limit_counts_the_seed(graph: ReferenceGraph) -> None:
    """No row is added beyond the limit, and edges lead only to rows that are in."""
    found = sample(graph, ("customers", 1), 300, {"default": 9}, {"default": 9}, node_limit=3)
    assert rows(found) == [("customers", 1, 0), ("payments", 12, 1), ("payments", 11, 1)]
    assert found.edges == [(0, 1, OF_CUSTOMER), (0, 2, OF_CUSTOMER)]


def test_unknown_seeds_stand_alone(graph: ReferenceGraph) -> None:
    """A key never seen gives a neighborhood of itself."""
    assert rows(sample(graph, ("customers", 99), 300, {"default": 9})) == [("customers", 99, 0)]

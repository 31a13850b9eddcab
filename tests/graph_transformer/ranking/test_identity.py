"""Identities: a key has the same code in every graph, and what training did not know has code 0."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from graph_transformer.ranking.identity import BoundIdentities, Identities
from online_sampler.sampler import Sampler

from .conftest import Opened, Shop, item_event


def test_a_key_has_the_same_code_in_a_graph_that_numbers_its_rows_otherwise(shop: Shop, opened: Opened) -> None:
    """Items arrive in the opposite order: rows differ, codes by key do not."""
    names = [f"item {index}" for index in range(10)]
    other = opened([item_event(name, 10, 1.0) for name in reversed(names)]).view()
    for view in (shop.view, other):
        bound = BoundIdentities(shop.identities, view)
        codes = bound.codes(view.row_index("items", names))
        assert codes.tolist() == [shop.identities.keys.index(name) + 1 for name in names[:8]] + [0, 0]
    assert (other.row_index("items", names) != shop.view.row_index("items", names)).any()


def test_what_is_in_no_graph_is_unknown(shop: Shop) -> None:
    """Row -1, of a session's item that the graph lacks, reads code 0 and not the last row's."""
    bound = BoundIdentities(shop.identities, shop.view)
    assert bound.codes(np.array([-1, 0, -1])).tolist() == [0, 1, 0]


def test_items_that_arrive_later_are_looked_up_when_they_are_met(shop: Shop, opened: Opened) -> None:
    """An item that training knew and this graph learns of later has its own code; a new one has 0."""
    graph = opened([item_event("item 3", 10, 1.0)])
    view = graph.view()
    bound = BoundIdentities(shop.identities, view)
    assert bound.codes(np.array([0])).tolist() == [shop.identities.keys.index("item 3") + 1]
    graph.apply([item_event("never heard of", 20, 1.0), item_event("item 5", 20, 1.0)], backfill=True)
    found = bound.codes(view.row_index("items", ["never heard of", "item 5"]))
    assert found.tolist() == [0, shop.identities.keys.index("item 5") + 1]


def test_a_batch_names_its_items_and_no_other_rows(shop: Shop) -> None:
    """Every sampled item row is there with its code, in rising order."""
    plan = shop.task.sampling_plan
    cutoff = np.full(2, 150)
    neighborhood = Sampler(shop.view, plan).sample_rows("users", np.arange(2), cutoff, as_of=True)
    bound = BoundIdentities(shop.identities, shop.view)
    node, code = bound.of_neighborhood(neighborhood)
    is_item = neighborhood.table == shop.view.schema.table_index("items")
    assert node.tolist() == np.flatnonzero(is_item).tolist()
    assert len(node) > 2
    assert code.tolist() == bound.codes(neighborhood.row[is_item]).tolist()


def test_keys_of_every_form_survive_a_checkpoint() -> None:
    """Integers, texts and keys of several parts are the same after JSON."""
    keys: tuple[Any, ...] = (3, "three", ("a", 3))
    identities = Identities("items", keys)
    assert Identities.from_dict(json.loads(json.dumps(identities.to_dict()))) == identities
    assert identities.count == 4

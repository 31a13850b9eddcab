from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.layout import Layout
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.rows import RowEncoder
from graph_transformer.target import Kind, Target

RACING = """
version: 1
name: racing
tables:
  circuits:
    primary_key: {id: integer}
    columns: {length: numerical}
  races:
    primary_key: {id: integer}
    time_column: at
    columns: {round: numerical}
    links: {circuit: circuits}
  drivers:
    primary_key: {id: integer}
  results:
    primary_key: {id: integer}
    time_column: at
    columns: {place: numerical}
    links: {race: races, driver: drivers}
"""
RESULTS = "drivers.id->results.driver"
RACE = "results.race->races.id"
CIRCUIT = "races.circuit->circuits.id"
DRIVERS = Target(Kind.REGRESSION, "drivers", event_level=False)


def driven(drawing: Any, *, length: float, race_known: bool = True) -> Any:
    """A driver with two results: the first of a race on a circuit of this length, which may not be sampled."""
    seed = drawing.seed("drivers", 10**12)
    for place, is_known in ((1.0, race_known), (2.0, True)):
        result = drawing.row(seed, RESULTS, {"place": place}, event=10**11)
        if is_known:
            race = drawing.row(result, RACE, {"round": 3.0 + place}, event=10**11)
            drawing.row(race, CIRCUIT, {"length": length if place == 1.0 else 5.0})
    return drawing.build()


def encoding_of(drawing: Any, neighborhood: Any) -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=DRIVERS)
    return Encoding(statistics, drawing.schema, drawing.strings)


def rows_of(layout: Layout, **options: Any) -> RowEncoder:
    """An encoder with the same random weights each time."""
    torch.manual_seed(0)
    return RowEncoder(layout, 16, **options).eval()


def test_parents_are_folded_after_their_own_parents(draw: Callable[[str], Any]) -> None:
    """Two links lead from a result to its circuit, and the farther one is folded first; bare drivers tell nothing."""
    drawing = draw(RACING)
    layout = encoding_of(drawing, driven(drawing, length=4.0)).layout()
    assert [layout.links[link].name for link in layout.folded] == [CIRCUIT, RACE]


@torch.inference_mode()
def test_a_row_takes_in_its_parents_and_theirs(draw: Callable[[str], Any]) -> None:
    """Another length of the first race's circuit changes that result's vector, and the other result's not at all."""
    drawing = draw(RACING)
    short, long = driven(drawing, length=3.0), driven(drawing, length=8.0)
    encoding = encoding_of(drawing, short)
    for options in ({}, {"cells": "attention"}):
        encoder = rows_of(encoding.layout(), **options)
        one, other = (encoder(collate(n, encoding)) for n in (short, long))
        assert float((one[1] - other[1]).abs().max()) > 1e-3
        assert torch.equal(one[[0, 2]], other[[0, 2]])
    alone = rows_of(encoding.layout(), fold=False)
    one, other = (alone(collate(n, encoding)) for n in (short, long))
    assert torch.equal(one[1], other[1])


@torch.inference_mode()
def test_only_parents_in_the_neighborhood_are_seen(draw: Callable[[str], Any]) -> None:
    """A result whose race was not sampled reads as it does without folding; the other still has its own."""
    drawing = draw(RACING)
    whole, cut = driven(drawing, length=3.0), driven(drawing, length=3.0, race_known=False)
    encoding = encoding_of(drawing, whole)
    folded, alone = rows_of(encoding.layout()), rows_of(encoding.layout(), fold=False)
    alone.load_state_dict(folded.state_dict(), strict=False)
    batch = collate(cut, encoding)
    assert torch.equal(folded(batch)[1], alone(batch)[1])
    assert not torch.equal(folded(batch)[2], alone(batch)[2])


def test_folded_rows_are_no_tokens(draw: Callable[[str], Any]) -> None:
    """The seed attends to the results; races and circuits reach it inside them."""
    drawing = draw(RACING)
    neighborhood = driven(drawing, length=3.0)
    batch = collate(neighborhood, encoding_of(drawing, neighborhood))
    assert batch.token is not None
    assert batch.token.tolist() == [[0, 1, 2]]
    assert batch.nodes == 7
    assert batch.mask() is None


@pytest.mark.parametrize("cells", ["sum", "attention"])
@torch.inference_mode()
def test_a_null_and_an_unseen_value_are_values(orders: Any, cells: str) -> None:
    """No number, zero, an unseen country and no country all read differently; every vector is finite."""
    link = "orders.customer_id->customers.customer_id"
    drawn = []
    for total, country in ((0.0, "de"), (None, "de"), (0.0, "never"), (0.0, None)):
        customer = orders.row(orders.seed("orders", 10**12, {"total": total}), link, {"country": country})
        drawn.append(orders.build())
        assert customer == 1
    for value in (1.0, 2.0):
        for country in ("de", "fr"):
            orders.row(orders.seed("orders", 10**12, {"total": value}), link, {"country": country})
    target = Target(Kind.BINARY, "orders", event_level=True, column="returned")
    statistics = fit_statistics([orders.build()], orders.schema, orders.strings, target=target)
    encoding = Encoding(statistics, orders.schema, orders.strings)
    encoder = rows_of(encoding.layout(), cells=cells)
    vectors = torch.stack([encoder(collate(n, encoding)).reshape(-1) for n in drawn])
    assert bool(torch.isfinite(vectors).all())
    apart = torch.cdist(vectors, vectors)
    assert float(apart[~torch.eye(4, dtype=torch.bool)].min()) > 1e-3


@torch.inference_mode()
def test_degree_and_rank_reach_the_row(payments: Any) -> None:
    """A customer with three payments differs from one with one; the newest of equal payments from the oldest."""
    forward, backward = (
        "transactions.customer_id->customers.customer_id",
        "customers.customer_id->transactions.customer_id",
    )
    drawn = []
    for count in (1, 3):
        customer = payments.row(payments.seed("transactions", 10**12), forward)
        for age in range(count):
            payments.row(customer, backward, {"amount": 1.0}, event=10**11 - age)
        drawn.append(payments.build())
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    statistics = fit_statistics(drawn, payments.schema, payments.strings, target=target)
    encoding = Encoding(statistics, payments.schema, payments.strings)
    encoder = rows_of(encoding.layout())
    torch.nn.init.ones_(encoder.rank)
    few, many = (encoder(collate(n, encoding)) for n in drawn)
    assert not torch.allclose(few[1], many[1], atol=1e-3)
    assert not torch.allclose(many[2], many[4], atol=1e-3)


ITEMS = """
version: 1
name: shop
tables:
  users: {primary_key: {id: integer}}
  items:
    primary_key: {id: integer}
    columns: {price: numerical}
  orders:
    primary_key: {id: integer}
    time_column: at
    links: {user: users, item: items}
"""


def test_a_table_may_be_called_as_a_container_calls_its_own(draw: Callable[[str], Any]) -> None:
    """`items` is a method of the container that holds tables' parts, and the commonest name of a table of items."""
    drawing = draw(ITEMS)
    seed = drawing.seed("users", 10**12)
    order = drawing.row(seed, "users.id->orders.user", event=10**11)
    drawing.row(order, "orders.item->items.id", {"price": 3.0})
    neighborhood = drawing.build()
    target = Target(Kind.REGRESSION, "users", event_level=False)
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target)
    encoding = Encoding(statistics, drawing.schema, drawing.strings)
    assert RowEncoder(encoding.layout(), 4)(collate(neighborhood, encoding)).shape == (3, 4)


def test_an_identity_is_told_to_the_row_that_points_to_it(draw: Callable[[str], Any]) -> None:
    """Items without any cell are folded into their orders once they are known by name, and differ by it."""
    drawing = draw(ITEMS.replace("\n    columns: {price: numerical}", ""))
    seed = drawing.seed("users", 10**12)
    for _ in range(2):
        order = drawing.row(seed, "users.id->orders.user", event=10**11)
        drawing.row(order, "orders.item->items.id")
    neighborhood = drawing.build()
    target = Target(Kind.REGRESSION, "users", event_level=False)
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target)
    assert Encoding(statistics, drawing.schema, drawing.strings).layout().folded == ()
    encoding = Encoding(statistics, drawing.schema, drawing.strings, identified="items")
    layout = replace(encoding.layout(), identities=3)
    assert [layout.links[link].name for link in layout.folded] == ["orders.item->items.id"]
    codes = {"identity_node": torch.tensor([3, 4]), "identity_code": torch.tensor([1, 2])}
    batch = replace(collate(neighborhood, encoding), **codes)
    contents = rows_of(layout).contents(batch)
    assert (contents[1] - contents[2]).abs().max() > 1e-4
    same = rows_of(layout).contents(replace(batch, identity_code=torch.tensor([2, 2])))
    torch.testing.assert_close(same[1], same[2])

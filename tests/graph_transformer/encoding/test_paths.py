from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from graph_transformer.encoding.paths import LinkPath, PathTable, fit_paths

CUSTOMER = "transactions.customer_id->customers.customer_id"
TERMINAL = "transactions.terminal_id->terminals.terminal_id"
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"
OF_TERMINAL = "terminals.terminal_id->transactions.terminal_id"
TRANSFERS = """
version: 1
name: transfers
tables:
  people:
    primary_key: {id: integer}
  transfers:
    primary_key: {id: integer}
    time_column: at
    links: {sender: people, receiver: people}
"""


def drawn(payments: Any, *, second_path: bool = False) -> Any:
    """A payment, its customer with two payments, its terminal with one; the customer's first may be the terminal's."""
    seed = payments.seed("transactions", 1000)
    customer, terminal = payments.row(seed, CUSTOMER), payments.row(seed, TERMINAL)
    shared = payments.row(customer, OF_CUSTOMER, event=500)
    payments.row(customer, OF_CUSTOMER, event=400)
    payments.row(terminal, OF_TERMINAL, event=300)
    if second_path:
        payments.edge(terminal, shared, OF_TERMINAL)
    return payments.build()


def test_paths_are_those_of_the_training_neighborhoods(payments: Any) -> None:
    """Every sequence of links that was walked is a path, with its table; the seed is the first."""
    paths = fit_paths([drawn(payments)], payments.schema, "transactions")
    assert [(path.links, path.table) for path in paths] == [
        ((), "transactions"),
        ((CUSTOMER,), "customers"),
        ((TERMINAL,), "terminals"),
        ((CUSTOMER, OF_CUSTOMER), "transactions"),
        ((TERMINAL, OF_TERMINAL), "transactions"),
    ]
    assert [path.hop for path in paths] == [0, 1, 1, 2, 2]
    assert paths[3].share == 0.4  # two of the five rows that are not the seed


def test_every_row_gets_the_path_it_was_reached_by(payments: Any) -> None:
    """The path of a row is its parent's path and its own link, at every hop."""
    neighborhood = drawn(payments)
    table = PathTable(fit_paths([neighborhood], payments.schema, "transactions"), payments.schema)
    assert table.of_nodes(neighborhood).tolist() == [0, 1, 2, 3, 3, 4]


def test_a_path_not_seen_in_training_is_other(payments: Any) -> None:
    """A model trained on customers' history alone takes a terminal's rows as OTHER and does not fail."""
    neighborhood = drawn(payments)
    known = (LinkPath((), "transactions", 0.0), LinkPath((CUSTOMER,), "customers", 0.5))
    table = PathTable(known, payments.schema)
    assert table.of_nodes(neighborhood).tolist() == [0, 1, table.other, table.other, table.other, table.other]


def test_a_second_path_to_a_row_is_seen(payments: Any) -> None:
    """A customer's payment that the terminal's edge reaches too has both paths; all other rows have their own twice."""
    neighborhood = drawn(payments, second_path=True)
    table = PathTable(fit_paths([neighborhood], payments.schema, "transactions"), payments.schema)
    path = table.of_nodes(neighborhood)
    also = table.of_edges(neighborhood, path)
    assert path.tolist() == [0, 1, 2, 3, 3, 4]
    assert also.tolist() == [0, 1, 2, 4, 3, 4]


def test_two_links_to_one_parent_are_two_paths(draw: Callable[[str], Any]) -> None:
    """A transfer between a customer's own accounts names the customer twice: the second link is a second path."""
    drawing = draw(TRANSFERS)
    schema = drawing.schema
    seed = drawing.seed("transfers", 1000)
    person = drawing.row(seed, "transfers.sender->people.id")
    earlier = drawing.row(person, "people.id->transfers.sender", event=5)
    drawing.edge(person, earlier, "people.id->transfers.receiver")
    other = drawing.row(person, "people.id->transfers.receiver", event=4)
    neighborhood = drawing.build()
    table = PathTable(fit_paths([neighborhood], schema, "transfers"), schema)
    path = table.of_nodes(neighborhood)
    also = table.of_edges(neighborhood, path)
    assert path[earlier] != path[other]
    assert also[earlier] == path[other]
    assert also[other] == path[other]


def test_paths_follow_names_not_positions(payments: Any) -> None:
    """The same paths on a schema with its tables in another order give the same answer."""
    neighborhood = drawn(payments)
    paths = fit_paths([neighborhood], payments.schema, "transactions")
    schema = payments.schema
    turned = replace(schema, tables=tuple(replace(table, links=table.links[::-1]) for table in reversed(schema.tables)))
    assert turned.edge_types != schema.edge_types
    renumbered = np.array([-1 if link < 0 else turned.edge_types.index(schema.edge_types[link])
                           for link in neighborhood.link])  # fmt: skip
    other = replace(neighborhood, link=renumbered.astype(np.int16))
    first = PathTable(paths, schema).of_nodes(neighborhood)
    assert PathTable(paths, turned).of_nodes(other).tolist() == first.tolist()

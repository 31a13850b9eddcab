"""The definition of what is erased, on histories small enough to read."""

from __future__ import annotations

from temporal_graph.reference_erasure import Change, cut, erased_until
from temporal_graph.schema import parse_schema

SCHEMA = parse_schema("""
version: 1
name: people
tables:
  people: {primary_key: {id: integer}}
  orders:
    primary_key: {id: integer}
    time_column: at
    links: {person: {table: people, erase: true}, agent: people}
  lines:
    time_column: at
    links: {order: {table: orders, erase: true}}
""")


def change(table: str, key: int, at: int, **links: int) -> Change:
    """A patch that happened at a time."""
    return Change(table, "upsert", (key,), at, at, {name: (value,) for name, value in links.items()})


def test_erasure_spreads_to_what_is_ones_own() -> None:
    """Orders of a person and their lines are erased with it, until the same time; what names it otherwise is not."""
    history = [
        change("orders", 1, 5, person=7),
        change("lines", 10, 6, order=1),
        change("orders", 2, 5, person=8, agent=7),
    ]
    until = erased_until(SCHEMA, history, {("people", (7,)): 9})
    assert until == {("people", (7,)): 9, ("orders", (1,)): 9, ("lines", (10,)): 9}
    assert erased_until(SCHEMA, history[1:], {("people", (7,)): 9}) == {("people", (7,)): 9}


def test_one_change_is_enough_to_be_ones_own() -> None:
    """A row that moved on was the person's own once, whatever the order; the latest of all times counts."""
    history = [change("orders", 1, 5, person=7), change("orders", 1, 6, person=8)]
    for order in (history, history[::-1]):
        assert erased_until(SCHEMA, order, {("people", (7,)): 4, ("people", (8,)): 9})[("orders", (1,))] == 9
        assert erased_until(SCHEMA, order, {("people", (7,)): 4})[("orders", (1,))] == 4
        assert erased_until(SCHEMA, order, {("people", (7,)): 4, ("orders", (1,)): 5})[("orders", (1,))] == 5


def test_a_link_that_does_not_erase_is_cut() -> None:
    """It names nothing until the erasure's time, and the row again one microsecond later."""
    orders, until = SCHEMA.table("orders"), {("people", (7,)): 9}
    assert cut(orders, change("orders", 1, 9, agent=7), until).cells == {"agent": None}
    later = change("orders", 1, 10, agent=7)
    assert cut(orders, later, until) == later
    assert cut(orders, later, {}) == later

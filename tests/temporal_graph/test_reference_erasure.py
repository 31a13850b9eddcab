"""The definition of what is erased, on histories small enough to read; and the native graph held against it."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import Operation, ReferenceEvent, ReferenceGraph
from temporal_graph.reference_erasure import Change, cut, erased_until
from temporal_graph.reference_values import Key, Value
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


OPERATIONS: dict[str, list[Operation]] = {
    "people": ["insert", "erase", "erase"],
    "orders": ["insert", "upsert", "upsert", "upsert", "erase"],
    "lines": ["insert"],
}


@st.composite
def histories(draw: st.DrawFn) -> list[ReferenceEvent]:
    """Events of one order, its lines and two people; a change is known up to four microseconds after it happened."""
    events: list[ReferenceEvent] = []
    for _ in range(draw(st.integers(2, 8))):
        table = draw(st.sampled_from(["people", "orders", "orders", "orders", "lines"]))
        operation = draw(st.sampled_from(OPERATIONS[table]))
        key: Key = {"people": (draw(st.integers(1, 2)),), "orders": (1,), "lines": ("1",)}[table]
        at = draw(st.integers(1, 5))
        known = None if operation == "erase" else at + draw(st.integers(0, 4))
        cells: dict[str, Value] = {
            link.name: draw(st.sampled_from([(1,), (2,)]))
            for link in SCHEMA.table(table).links
            if operation != "erase" and draw(st.booleans())
        }
        events.append(ReferenceEvent(table, operation, key, at, known, cells))
    return events


def wire(event: ReferenceEvent) -> bytes:
    """The event as a serialized RowEvent."""
    made = pb.RowEvent(table=event.table, operation=pb.Operation.Value(f"OPERATION_{event.operation.upper()}"))
    made.event_time_us = event.event_time_us
    if event.known_time_us is not None:
        made.known_time_us = event.known_time_us
    if isinstance(event.key[0], int):
        made.key.parts.add(integer=event.key[0])
    else:
        made.event_id = event.key[0]
    for name, value in event.cells.items():
        cell = made.cells.add(column=name)
        if value is None:
            cell.null = pb.NULL_VALUE_UNSPECIFIED
        else:
            assert isinstance(value, tuple)
            cell.integer = value[0]  # type: ignore[assignment]
    return made.SerializeToString()


def held_against_the_twin(history: list[ReferenceEvent]) -> str:
    """Apply one by one, compare with the twin, and return the hash."""
    twin = ReferenceGraph(SCHEMA)
    with TemporalGraph.create(SCHEMA, arena_bytes=32 << 20) as graph:
        for event in history:
            graph.apply([wire(event)])
            twin.apply([event])
        assert graph.dump() == twin.dump()
        return graph.canonical_hash()


@settings(max_examples=300, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_native_graph_erases_by_this_definition(history: list[ReferenceEvent], shuffler: random.Random) -> None:
    """In three orders, the last with everything twice: equal to the twin, and one hash."""
    hashes = [held_against_the_twin(history)]
    shuffler.shuffle(history)
    hashes.append(held_against_the_twin(history))
    again = [*history, *history]
    shuffler.shuffle(again)
    hashes.append(held_against_the_twin(again))
    assert len(set(hashes)) == 1


def upsert(at: int, known: int, **links: int) -> ReferenceEvent:
    """A patch of the order."""
    return ReferenceEvent("orders", "upsert", (1,), at, known, {name: (value,) for name, value in links.items()})


def test_a_parent_that_was_never_seen_in_the_chair_owns_the_row_too() -> None:
    """A change that names the person becomes visible only after a later one that names another: no link ever opens."""
    history = [upsert(3, 3, person=2), upsert(1, 5, person=1), ReferenceEvent("people", "erase", (1,), 4)]
    for order in itertools.permutations(history):
        held_against_the_twin(list(order))
    older = upsert(1, 1, agent=2)  # the row is written anew for it, and still names the person
    history = [older, upsert(6, 6, person=2), upsert(5, 8, person=1), ReferenceEvent("orders", "erase", (1,), 2)]
    for order in itertools.permutations(history):
        held_against_the_twin([*order, ReferenceEvent("people", "erase", (1,), 7)])

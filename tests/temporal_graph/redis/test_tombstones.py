"""What a tombstone says of changes that come after it."""

from __future__ import annotations

from typing import Any

import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.redis.row_event import Change, EventReader
from temporal_graph.redis.tombstones import Tombstone, Tombstones
from temporal_graph.schema import parse_schema

SCHEMA = parse_schema("""
version: 1
name: people
tables:
  people: {primary_key: {name: string}}
  orders:
    primary_key: {id: integer}
    time_column: at
    links: {person: {table: people, erase: true}, agent: people}
""")


@pytest.fixture
def tombstones() -> Tombstones:
    """Of a graph that is not there: what they say is asked of what was found."""
    nothing: Any = None
    return Tombstones(SCHEMA, nothing, nothing, EventReader(SCHEMA))


def order(at: int, **links: str) -> Change:
    """An order that names people."""
    made = pb.RowEvent(table="orders", operation=pb.OPERATION_UPSERT, event_time_us=at)
    made.key.parts.add().integer = 1
    for name, key in links.items():
        made.cells.add(column=name, text=key)
    return EventReader(SCHEMA).read(made.SerializeToString())


def test_a_change_makes_a_row_the_erased_ones_own(tombstones: Tombstones) -> None:
    """Erased as long as the parent, unless it is already; a link that does not erase raises nothing."""
    first = order(3, person="ann", agent="bob")
    parents = [tombstones.ref(tombstones.parent(link, key)) for link, key in first.version.links]
    found = dict.fromkeys(parents, Tombstone(until_us=7))
    assert tombstones.raised([first], found) == {first.entity: 7}
    assert tombstones.raised([order(3, agent="bob")], found) == {}
    assert tombstones.raised([first], {**found, tombstones.ref(first.entity): Tombstone(until_us=7)}) == {}


def test_a_change_is_dropped_cut_or_kept_by_when_it_happened(tombstones: Tombstones) -> None:
    """At the time of the erasure and a microsecond later; what is dropped still says whose own the row was."""
    agent = order(3, agent="bob")
    bob = tombstones.ref(tombstones.parent(*agent.version.links[0]))
    for until_us, key in ((3, b""), (2, agent.version.links[0][1])):
        judged = tombstones.judge([agent], {bob: Tombstone(until_us=until_us)})
        assert [each.version.links for each in judged.kept] == [((agent.version.links[0][0], key),)]
        assert (b"bob" in judged.kept[0].stored) == bool(key)
        assert list(judged.named) == ([bob] if key else [])
    owned = order(3, person="ann")
    ref = tombstones.ref(owned.entity)
    judged = tombstones.judge([owned, order(4)], {ref: Tombstone(until_us=3)})
    assert (len(judged.kept), judged.dropped) == (1, 1)
    assert judged.owned == {(tombstones.ref(tombstones.parent(*owned.version.links[0])), ref)}
    assert judged.named == {ref: owned.entity}


def test_a_reference_holds_nothing_of_the_key(tombstones: Tombstones) -> None:
    """A slice and half of a digest, another for each table."""
    person = bytes((0,)) + b"\x02SECRET\0\0"
    number, digest = tombstones.ref(person)
    assert len(digest) == 16
    assert b"SECRET" not in digest
    assert tombstones.ref(bytes((1,)) + person[1:])[1] != digest
    assert 0 <= number < 1024

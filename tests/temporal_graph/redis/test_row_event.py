from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.keys import entity, key_bytes
from temporal_graph.redis.row_event import EventReader, happened_us
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

SECOND_US = 1_000_000


def visit(customer: int, event_time_us: int, event_id: str = "") -> bytes:
    """A row of the table without a key."""
    event = pb.RowEvent(table="visits", operation=pb.OPERATION_INSERT, event_time_us=event_time_us, event_id=event_id)
    event.cells.add(column="customer_id", integer=customer)
    return event.SerializeToString()


def customer(key: int, operation: pb.Operation, event_time_us: int | None = None) -> bytes:
    """A row of the table without time."""
    event = pb.RowEvent(table="customers", operation=operation, event_time_us=event_time_us)
    event.key.parts.add(integer=key)
    event.cells.add(column="segment", text="é")
    return event.SerializeToString()


@pytest.mark.parametrize("backfill", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_stored_events_make_the_same_graph(
    schema: Schema, payment: Callable[..., bytes], seed: int, backfill: bool
) -> None:
    """Applied anywhere, without the broker's times and places, they say what they said where they came from."""
    rng, events = random.Random(seed), []
    for _ in range(60):
        at_us = rng.randrange(1, 50) * SECOND_US
        known_us = rng.choice([None, None, at_us + SECOND_US])
        operation = rng.choice(["INSERT", "UPSERT", "DELETE"])
        parent = rng.choice([None, -4, 2**40])
        events += [
            payment(rng.randrange(9), at_us, customer=parent, amount=1.5, known_time_us=known_us, operation=operation),
            visit(rng.randrange(3), at_us),
            customer(rng.randrange(3), rng.choice([1, 2, 3]), rng.choice([None, at_us])),
        ]
    broker_us = np.array([rng.randrange(1, 60) * SECOND_US for _ in events])
    partition, offset = np.zeros(len(events), np.int32), np.arange(len(events))
    first = TemporalGraph.create(schema, arena_bytes=1 << 26)
    applied = first.apply(
        events, broker_time_us=broker_us, topic="t", partition=partition, offset=offset, backfill=backfill
    )
    refused = {one.index for one in applied.rejected}
    reader = EventReader(schema)
    stored = []
    for index, event in enumerate(events):
        if index in refused:
            continue
        change = reader.read(event, place=("t", 0, index), broker_time_us=int(broker_us[index]), backfill=backfill)
        stored.append(reader.event(change.entity[0], change.stored))
    second = TemporalGraph.create(schema, arena_bytes=1 << 26)
    assert second.apply(stored, backfill=True).rejected == ()
    assert second.dump() == first.dump()
    assert second.canonical_hash() == first.canonical_hash()


def test_what_an_event_says_of_rows_times_and_links(schema: Schema, payment: Callable[..., bytes]) -> None:
    """Its row, the later of its clocks, and each parent it names; null where it says so."""
    reader = EventReader(schema)
    change = reader.read(payment(7, 100, customer=-3, known_time_us=250))
    assert change.entity == entity(1, key_bytes((7,)))
    assert (change.event_time_us, change.version.visible_time_us) == (100, 250)
    assert change.version.links == ((0, key_bytes((-3,))),)
    assert reader.read(payment(7, 100), broker_time_us=180).version.visible_time_us == 180
    assert reader.read(payment(7, 100), broker_time_us=180, backfill=True).version.visible_time_us == 100
    assert reader.read(customer(1, pb.OPERATION_INSERT, 5)).version.visible_time_us == ALWAYS_US
    assert reader.read(visit(1, 5, "id")).entity == entity(2, key_bytes(("id",)))
    assert reader.read(visit(1, 5, "id"), place=("t", 0, 3)).entity == entity(2, key_bytes(("t/0/3",)))


@pytest.mark.parametrize(("table", "key"), [("customers", (4,)), ("payments", (2**50,)), ("visits", ("a\0é",))])
def test_a_row_that_is_unseen_is_known_until_the_end_of_time(schema: Schema, table: str, key: tuple[int | str]) -> None:
    """Before the last instant it has no visible version."""
    reader = EventReader(schema)
    graph = TemporalGraph.create(schema, arena_bytes=1 << 26)
    applied = graph.apply([reader.unseen(schema.table_index(table), key_bytes(key))], backfill=True)
    assert (applied.applied, applied.rejected) == (1, ())
    assert graph.view().row_index(table, [key[0]]).tolist() == [0]
    assert graph.dump()[table].popitem()[1]["versions"][0][:3] == [TIME_MAX_US, TIME_MAX_US, "delete"]


def test_a_row_that_is_only_named_has_no_version(schema: Schema) -> None:
    """What names it is there at the last instant only, under a key of its own each time."""
    reader = EventReader(schema)
    graph = TemporalGraph.create(schema, arena_bytes=1 << 26)
    graph.apply([reader.naming(0, key_bytes((key,)), number) for number, key in enumerate((7, 8))], backfill=True)
    dumped = graph.dump()
    assert dumped["customers"] == {"[7]": {"versions": []}, "[8]": {"versions": []}}
    [children] = [found for found in dumped["links"].values() if found]
    assert [[time_us for time_us, _ in one] for one in children.values()] == [[TIME_MAX_US], [TIME_MAX_US]]


@pytest.mark.parametrize("operation", ["INSERT", "UPSERT"])
def test_a_link_that_is_cut_is_null_and_all_else_stays(
    schema: Schema, payment: Callable[..., bytes], operation: str
) -> None:
    """The native core reads of the stored event what it reads of one that named nothing; the time is told from it."""
    reader = EventReader(schema)
    whole = reader.read(payment(1, 5, customer=7, amount=2.5, known_time_us=6, operation=operation))
    version, stored = reader.cut(whole.version, whole.stored, [0])
    assert (version.links, version.visible_time_us) == (((0, b""),), 6)
    assert (happened_us(stored), happened_us(whole.stored)) == (5, 5)
    assert happened_us(reader.read(customer(1, pb.OPERATION_INSERT)).stored) == ALWAYS_US
    graph = TemporalGraph.create(schema, arena_bytes=1 << 26)
    assert graph.apply([reader.event(schema.table_index("payments"), stored)]).applied == 1
    cells = graph.dump()["payments"]["[1]"]["versions"][0][3]
    assert cells == {"amount": 2.5} | ({"customer_id": None} if operation == "UPSERT" else {})

"""Everything that can be wrong with a record, on a real Kafka; and what becomes of it once that is mended."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from stream.dead_letters import StoredDeadLetter, list_dead_letters, redrive
from stream.producer import Delivery, EventProducer

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

SEED = 17
COUNT = 300
S, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
START_US = 1_700_000_000 * S

REASONS = {
    "late", "future", "unknown_column", "unknown_table", "malformed", "wrong_kind", "not_finite", "too_large",
    "bad_operation",
}  # fmt: skip

SCHEMA = """
version: 1
name: shop
tables:
  customers: {primary_key: {customer_id: integer}}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    known_time: broker
    lateness: 1h
    future: 1m
    columns: {amount: numerical}
    links: {customer_id: customers}
sources:
  - {topic: events, table: payments, format: protobuf}
"""
# A table and a column more, and bounds that a careless sender keeps.
MENDED = (
    SCHEMA.replace("lateness: 1h", "lateness: 3h")
    .replace("future: 1m", "future: 2d")
    .replace("{amount: numerical}", "{amount: numerical, channel: categorical}")
    .replace("sources:", "  refunds: {primary_key: {refund_id: integer}, links: {payment_id: payments}}\nsources:")
)


def mendable(simulated: ModuleType, number: int, at_us: int) -> list[bytes]:
    """What another schema takes: late, of the future, with a column or of a table that it has."""
    event = simulated.event
    return [
        event("payments", number, at_us - 2 * HOUR, amount=1.0, customer_id=1),
        event("payments", number + 1, at_us + DAY, amount=1.0, customer_id=2),
        event("payments", number + 2, at_us, channel="web", customer_id=3),
        event("refunds", number + 3, at_us, payment_id=number),
    ]


def hopeless(simulated: ModuleType, chance: random.Random, number: int, at_us: int) -> list[bytes]:
    """What nothing takes."""
    event = simulated.event
    return [
        chance.randbytes(60) + b"\xff",
        event("payments", number, at_us, amount="much"),
        event("payments", number, at_us, amount=float("nan")),
        event("payments", number, at_us, operation=99),
        chance.randbytes(10_000_000),
    ]


def test_dead_letters_driven_again_make_the_graph_of_the_repaired_log(
    apache_kafka: str, world_of: Callable[..., Any], simulated: ModuleType, updaters: Any
) -> None:
    """Among a tenth of duplicates, shuffled, every bad record becomes one dead letter with its reason. Driven again
    under a schema that takes them, the graph is that of a log in which they were right; the rest are dead again.
    """
    chance = random.Random(SEED)
    record = simulated.Record
    good = [
        record(simulated.event("payments", n, at, amount=float(n), customer_id=n % 7), at, False)
        for n, at in ((n, START_US + n * 60 * S) for n in range(COUNT))
    ]
    end_us = START_US + COUNT * 60 * S
    late = [record(value, end_us, True) for value in mendable(simulated, 10_000, end_us)]
    lost = [record(value, end_us, True) for value in hopeless(simulated, chance, 20_000, end_us)]
    mixed = good + late + lost + chance.sample(good, COUNT // 10)
    chance.shuffle(mixed)
    world = world_of(apache_kafka, schema=SCHEMA, log={("events", 0): mixed[0::2], ("events", 1): mixed[1::2]})
    world.tell(0, 1)
    updaters.finish(world)
    world.check()
    assert {stored.letter.reason for stored in list_dead_letters(world.settings)} == REASONS

    world.write_schema(MENDED)
    fate = {one.value: one in lost for one in late + lost}

    def sent(stored: StoredDeadLetter, delivery: Delivery) -> None:
        place = world.log[delivery.topic, delivery.partition]
        assert len(place) == delivery.offset
        value = stored.letter.value
        assert value is not None
        place.append(record(value, stored.letter.timestamp_us, fate[value]))

    with EventProducer(world.settings) as producer:
        assert redrive(world.settings, producer, on_sent=sent) == len(late) + len(lost)
    updaters.finish(world)
    whole, dead = world.replay()
    assert world.restored() == whole
    again = {place for place in dead if place[2] >= len(mixed) // 2}
    assert set(world.dead()) == again
    assert len(again) == len(lost)

    right = world_of(apache_kafka, schema=MENDED, log={("events", 0): good + late})
    right.tell(0, 1)
    assert right.replay() == (whole, set())

"""Records that are nearly right, or nothing at all, through decoder, updater and graph: what is no event is poison.

A round is 25,000 records of all formats with one seed: valid ones, valid ones with something changed, valid bytes with
something changed, noise. A round that fails says its seed; `round_of(seed)` is the same round again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from graph_updater.settings import UpdaterSettings
from graph_updater.updater import Updater
from protos.nowgraph.v1 import row_event_pb2 as pb
from stream.batch import Batch, DeadLetter, empty_batch
from stream.decode import Decoder
from stream.privacy import Privacy
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

ROUND = 25_000
ROUNDS_IN_CI, ROUNDS = 2, 40
S = 1_000_000
NOW_US = 1_700_000_000 * S
SECRET = b"a secret of sixteen bytes or more"

SCHEMA = parse_schema("""
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
    columns: {email: {kind: text, private: true}, city: categorical, rating: numerical, joined: timestamp}
  stores:
    primary_key: {region: string, number: integer}
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    lateness: 1h
    future: 1m
    columns:
      amount: numerical
      status: categorical
      tags: multicategorical
      note: text
      paid: {kind: boolean, outcome: true}
      due: timestamp
      taste: {kind: embedding, dim: 3}
    links: {customer_id: customers, store: {table: stores, columns: [store_region, store_number]}}
  cards:
    primary_key: {card: string}
    private: [card]
  payments:
    primary_key: {payment_id: integer}
    time_column: paid_at
    known_time: {column: reported_at}
    columns: {amount: numerical}
    links: {card: cards}
  visits:
    time_column: at
    known_time: broker
    columns: {page: categorical}
sources:
  - {topic: orders, table: orders, format: json}
  - {topic: order_changes, table: orders, format: json, operation: upsert, event_time: changed_at}
  - {topic: cancelled, table: orders, format: json, operation: delete, event_time: changed_at}
  - {topic: payments, table: payments, format: json}
  - {topic: visits, table: visits, format: json}
  - {topic: whole, table: orders, format: row_event_json}
  - {topic: events, table: orders, format: protobuf}
  - {topic: cdc.orders, table: orders, format: debezium}
  - {topic: cdc.customers, table: customers, format: debezium}
  - {topic: cdc.payments, table: payments, format: debezium}
""")
STORE = "store_region+store_number"
TOPICS = tuple(dict.fromkeys(source.topic for source in SCHEMA.sources))
OPEN = parse_schema("""
version: 1
name: open
tables:
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    columns: {amount: numerical, status: categorical, tags: multicategorical, taste: {kind: embedding, dim: 3}}
sources: [{topic: events, table: orders, format: protobuf}]
""")
"""Without private values nothing but the native core looks at a RowEvent's bytes."""

STRANGE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1.5, 3.0, 2**63 - 1, -(2**63), 2**53 + 1, 2**64 - 1, 1e308, -1e308, 5e-324, 1e19, "", "0",
    "-", "--5", "²", "1e999", "NaN", "9" * 5_000, "x" * 3_000, "é" * 100, "\x00", "\x1f", "0001-01-01",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999Z", "2018-13-45", "2018-02-29", "AQ==", "////", [], [[]],
    [1], [0.5] * 3, [1e39] * 3, ["a", None], {}, {"a": {}}, {"scale": -5, "value": "AQ=="}, {"scale": 10**9},
    "__debezium_unavailable_value", "io.debezium.time.Date", "io.debezium.time.NanoTimestamp",
    "io.debezium.time.ZonedTimestamp", "org.apache.kafka.connect.data.Decimal", "io.debezium.data.VariableScaleDecimal",
    "OPERATION_DELETE", "c", "u", "d", "t", "m",
)  # fmt: skip
TOKENS = (
    b"NaN", b"-Infinity", b"1e999", b"\\ud800", b"[" * 2_000, b'{"a":' * 1_500, b"\xef\xbb\xbf", b"\x00", b'"', b"{",
    b"}", b",", b":", b"-", b"9" * 400, b"null", b"\xff\xfe", b"\x80" * 11, b"\xff" * 9 + b"\x7f", b"\x3a\x00",
)  # fmt: skip


def order(chance: random.Random) -> dict[str, Any]:
    return {
        "order_id": chance.randrange(5_000),
        "ordered_at": NOW_US + chance.randrange(10**9),
        "amount": chance.random() * 100,
        "status": chance.choice(["new", "paid", 3]),
        "tags": ["a", "b"][: chance.randrange(3)],
        "note": "a note",
        "paid": chance.choice([True, 0, None]),
        "due": "2023-11-14T22:13:20Z",
        "taste": [0.5, -1, 2.25],
        "customer_id": chance.randrange(50),
        "store_region": "north",
        "store_number": chance.randrange(9),
    }


def payment(chance: random.Random) -> dict[str, Any]:
    """A row of payments: its card is private, its known time a column."""
    at_us = NOW_US + chance.randrange(10**9)
    card = f"4000-{chance.randrange(90)}"
    return {
        "payment_id": chance.randrange(5_000),
        "paid_at": at_us,
        "reported_at": at_us + S,
        "amount": 5,
        "card": card,
    }


def customer(chance: random.Random) -> dict[str, Any]:
    return {"customer_id": chance.randrange(50), "email": "a@b", "city": "Kiev", "rating": "4.5", "joined": 19_000}


def row_event(chance: random.Random) -> dict[str, Any]:
    cells = [{"column": "amount", "number": 5.5}, {"column": "tags", "texts": {"values": ["a"]}}]
    cells += [{"column": "taste", "vector": {"values": [1, 2, 3]}}, {"column": "customer_id", "null": None}]
    return {
        "table": "orders",
        "operation": chance.choice(["OPERATION_INSERT", 2, "OPERATION_DELETE"]),
        "key": {"parts": [{"integer": str(chance.randrange(5_000))}]},
        "eventTimeUs": str(NOW_US + chance.randrange(10**9)),
        "cells": cells[: chance.randrange(4)],
    }


def change(chance: random.Random, row: Callable[[random.Random], dict[str, Any]]) -> dict[str, Any]:
    """A change event, half of them with the schema block of Debezium's JSON converter."""
    op = chance.choice("crud")
    before, after = row(chance), row(chance)
    if chance.random() < 0.7:
        key = next(iter(before))
        before[key] = after[key]
    payload = {
        "op": op,
        "before": None if op in "cr" else before,
        "after": None if op == "d" else after,
        "source": {"ts_ms": NOW_US // 1000 + chance.randrange(10**6), "snapshot": "false"},
    }
    if chance.random() < 0.5:
        return payload
    decimal = {
        "field": "amount",
        "name": "org.apache.kafka.connect.data.Decimal",
        "parameters": {"scale": chance.choice(["2", "2", "2", "--5"])},
    }
    date = {"field": "joined", "name": "io.debezium.time.Date"}
    micros = {"field": "ordered_at", "name": "io.debezium.time.MicroTimestamp"}
    sides = [{"field": side, "fields": [decimal, date, micros]} for side in ("before", "after")]
    return {"schema": {"fields": sides}, "payload": payload}


JSON: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "orders": order,
    "order_changes": lambda chance: order(chance) | {"changed_at": NOW_US + chance.randrange(10**9)},
    "cancelled": lambda chance: {"order_id": chance.randrange(5_000), "changed_at": NOW_US + 10**9},
    "payments": payment,
    "visits": lambda chance: {"at": NOW_US, "page": f"page {chance.randrange(9)}"},
    "whole": row_event,
    "cdc.orders": lambda chance: change(chance, order),
    "cdc.customers": lambda chance: change(chance, customer),
    "cdc.payments": lambda chance: change(chance, payment),
}


def message(chance: random.Random) -> pb.RowEvent:
    """A RowEvent of orders, visits or payments with cells of every kind, one of them perhaps no good."""
    at_us = NOW_US + chance.randrange(10**9)
    event = pb.RowEvent(table="orders", operation=chance.choice([1, 1, 2, 3]), event_time_us=at_us)  # type: ignore[arg-type]
    event.key.parts.add(integer=chance.randrange(5_000))
    cells = [
        pb.Cell(column="amount", number=chance.random()),
        pb.Cell(column="status", text="new"),
        pb.Cell(column="tags", texts=pb.TextList(values=["a", "b"])),
        pb.Cell(column="paid", boolean=True),
        pb.Cell(column="due", timestamp_us=at_us),
        pb.Cell(column="taste", vector=pb.Vector(values=[1, 2, 3])),
        pb.Cell(column="customer_id", integer=chance.randrange(50)),
        pb.Cell(column=STORE, key=pb.Key(parts=[pb.KeyPart(text="north"), pb.KeyPart(integer=4)])),
    ]
    event.cells.extend(chance.sample(cells, chance.randrange(len(cells) + 1)))
    if chance.random() < 0.4:
        SPOIL[chance.randrange(len(SPOIL))](event, chance)
    return event


SPOIL: tuple[Callable[[pb.RowEvent, random.Random], object], ...] = (
    lambda event, chance: setattr(event, "table", chance.choice(["", "nothing", "cards", "visits", "x" * 3_000])),
    lambda event, chance: setattr(event, "operation", chance.choice([0, 4, 2**31 - 1, -1])),
    lambda event, chance: setattr(event, "event_time_us", chance.choice([-(2**63), 1 - 2**63, 2**63 - 1, 0, -1])),
    lambda event, chance: setattr(event, "known_time_us", chance.choice([-(2**63), 2**63 - 1, 0, NOW_US * 2])),
    lambda event, chance: event.ClearField(chance.choice(["event_time_us", "key", "table", "operation"])),
    lambda event, chance: event.key.parts.add(text=chance.choice(["", "a", "x" * 2_000])),
    lambda event, chance: event.key.parts[0].ClearField("integer"),
    lambda event, chance: setattr(event.key.parts[0], "integer", chance.choice([-(2**63), 2**63 - 1])),
    lambda event, chance: event.cells.add(
        column="amount", number=chance.choice([float("nan"), float("inf"), -0.0, 1e308])
    ),
    lambda event, chance: event.cells.add(
        column="taste", vector=pb.Vector(values=[1.0] * chance.choice([0, 2, 4, 500]))
    ),
    lambda event, chance: event.cells.add(column="taste", vector=pb.Vector(values=[float("nan"), 1, float("-inf")])),
    lambda event, chance: event.cells.add(column="tags", texts=pb.TextList(values=["a\x1fb", "", "é" * 50])),
    lambda event, chance: event.cells.add(column="note", text=chance.choice(["\x00", "", "x" * 3_000, "\U0010ffff"])),
    lambda event, chance: event.cells.add(column=STORE, key=pb.Key(parts=[pb.KeyPart()] * chance.randrange(4))),
    lambda event, chance: event.cells.add(column=chance.choice(["status", "weight", "", "customer_id"]), boolean=False),
    lambda event, chance: event.cells.add(column="due", timestamp_us=chance.choice([-(2**63), 2**63 - 1])),
    lambda event, chance: event.cells.extend([pb.Cell()] * chance.choice([1, 300])),
)


def change_one_place(document: dict[str, Any], chance: random.Random) -> None:
    """Replaces, removes or adds one value anywhere in a JSON document."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if type(value) is dict else range(len(value)):
            places.append((value, key))
            if type(value[key]) in (dict, list):
                walk(value[key])

    walk(document)
    holder, key = chance.choice(places)
    act = chance.random()
    if act < 0.15:
        del holder[key]
    elif act < 0.2 and type(holder) is dict:
        holder[chance.choice(["order_id", "unknown", "", "payload", "op", "scale"])] = chance.choice(STRANGE)
    else:
        holder[key] = chance.choice(STRANGE)


def change_bytes(value: bytes, chance: random.Random) -> bytes:
    """Flips, cuts, repeats, inserts: bytes that were a record once."""
    act, at = chance.randrange(6), chance.randrange(len(value) + 1)
    if act == 0:
        return value[:at]
    if act == 1:
        return value[:at] + chance.choice(TOKENS) + value[at:]
    if act == 2:
        end = min(len(value), at + chance.randrange(20))
        return value[:end] + value[at:end] * chance.randrange(1, 4) + value[end:]
    if act == 3:
        return chance.randbytes(chance.randrange(64))
    changed = bytearray(value)
    for _ in range(chance.choice((1, 1, 3))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed) if act == 4 else bytes(changed[at:])


def record(topic: str, chance: random.Random) -> bytes | None:
    """A record for a topic: as it should be, or not."""
    if topic == "events":
        value = message(chance).SerializeToString()
    else:
        document = JSON[topic](chance)
        if chance.random() < 0.4:
            change_one_place(document, chance)
        value = orjson.dumps(document)
    if chance.random() < 0.3:
        value = change_bytes(value, chance)
    return None if chance.random() < 0.002 else value


class Log:
    """Records by topic, in one partition each, given in batches of any size; some are left out."""

    def __init__(self, records: dict[str, list[bytes | None]], chance: random.Random, without: frozenset[Any]) -> None:
        self._chance = chance
        self._left = {
            topic: [at for at in range(len(values)) if (topic, 0, at) not in without]
            for topic, values in records.items()
        }
        self._records = records

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        topics = [topic for topic, left in self._left.items() if left]
        if not topics:
            return empty_batch()
        topic = self._chance.choice(topics)
        count = self._chance.choice((1, 7, 100, 1_000))
        places, self._left[topic] = self._left[topic][:count], self._left[topic][count:]
        values = [self._records[topic][at] for at in places]
        return Batch(
            topic,
            np.zeros(len(places), np.int32),
            np.array(places, np.int64),
            np.array([NOW_US + at for at in places], np.int64),
            [None] * len(places),
            values,
        )

    def lag_records(self) -> int:
        return sum(map(len, self._left.values()))

    @property
    def exhausted(self) -> bool:
        return not self.lag_records()

    def close(self) -> None:
        pass


class Letters:
    """Dead letters, safe at once."""

    def __init__(self) -> None:
        self.kept: list[DeadLetter] = []

    def append(self, letters: Sequence[DeadLetter]) -> None:
        self.kept += letters

    def flush(self, timeout_s: float) -> None:
        pass


def graph_of(
    records: dict[str, list[bytes | None]], schema: Schema, seed: int, without: frozenset[Any] = frozenset()
) -> tuple[str, list[DeadLetter]]:
    """The canonical hash of what an updater makes of the records, and its dead letters."""
    letters = Letters()
    source = Log(records, random.Random(seed), without)
    privacy = Privacy(schema, SECRET) if schema is SCHEMA else None
    with TemporalGraph.create(schema, arena_bytes=1 << 30) as graph:
        updater = Updater(graph, [source], Decoder(schema, privacy), letters, settings=UpdaterSettings())
        updater.run()
        updater.close()
        return graph.canonical_hash(), letters.kept


def round_of(seed: int, topics: Sequence[str] = TOPICS, schema: Schema = SCHEMA) -> Counter[str]:
    """One round; returns how many dead letters there were of each reason."""
    chance = random.Random(seed)
    records: dict[str, list[bytes | None]] = {topic: [] for topic in topics}
    for _ in range(ROUND):
        topic = chance.choice(topics)
        records[topic].append(record(topic, chance))
    found, letters = graph_of(records, schema, seed)
    places = Counter((one.topic, one.partition, one.offset) for one in letters)
    assert max(places.values()) == 1, f"seed {seed}: two dead letters of one record: {places.most_common(1)}"
    for one in letters:
        assert one.value == records[one.topic][one.offset], f"seed {seed}: not the bytes of {one.topic} {one.offset}"
    alone, others = graph_of(records, schema, seed + 1, without=frozenset(places))
    assert others == [], f"seed {seed}: {others[:1]}"
    assert alone == found, f"seed {seed}: poison has changed the graph"
    return Counter(one.reason for one in letters)


@pytest.mark.parametrize("seed", range(ROUNDS_IN_CI))
def test_what_is_no_event_is_a_dead_letter_and_nothing_else(seed: int) -> None:
    """No exception; each poison exactly one dead letter with its bytes; the graph is that of the good records alone."""
    reasons = round_of(seed)
    assert 0.1 * ROUND < reasons.total() < 0.8 * ROUND
    assert len(reasons) > 25


def test_the_native_core_alone_stands_it_too() -> None:
    """Bytes that nothing has parsed before it."""
    assert set(round_of(17, ("events",), OPEN)) >= {"malformed", "unknown_table", "bad_operation", "not_finite"}


@pytest.mark.faults
@pytest.mark.timeout(3_000)
def test_a_million_records() -> None:
    """As above, forty seeds."""
    reasons: Counter[str] = Counter()
    for seed in range(100, 100 + ROUNDS):
        reasons += round_of(seed) if seed % 4 else round_of(seed, ("events",), OPEN)
    print(f"{ROUNDS * ROUND:,} records, {reasons.total():,} dead letters: {reasons.most_common()}")
    assert len(reasons) > 25

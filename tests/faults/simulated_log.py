"""The log of the simulation: a world's events, what becomes of them on their way, how a careless broker gives them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protos.nowgraph.v1 import row_event_pb2 as pb
from stream.batch import Batch, DeadLetter, empty_batch
from temporal_graph.schema import parse_schema

S, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
START_US = 1_700_000_000 * S
SCHEMA_YAML = """
version: 1
name: world
tables:
  customers:
    primary_key: {customer_id: integer}
    columns: {city: categorical}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    known_time: broker
    lateness: 1h
    future: 1m
    retention: {age: 3d}
    columns:
      amount: numerical
      shop: categorical
      fraud: {kind: boolean, outcome: true}
    links: {customer_id: {table: customers, erase: true}}
  visits:
    time_column: at
    links: {customer_id: {table: customers, erase: true}}
sources:
  - {topic: events, table: customers, format: protobuf}
  - {topic: events, table: payments, format: protobuf}
  - {topic: visits, table: visits, format: protobuf}
"""
SCHEMA = parse_schema(SCHEMA_YAML)
ON_DISK = parse_schema(SCHEMA_YAML.replace("    columns:", "    storage: disk\n    columns:"))
"""The same with all columns on disk."""


class Crash(BaseException):
    """The process dies here. No handler of errors may take it for one."""


@dataclass
class Clock:
    """Microseconds since the epoch; it only moves when it is moved."""

    now_us: int = START_US

    def seconds(self) -> float:
        """For intervals."""
        return self.now_us / 1e6


@dataclass
class Faults:
    """Whether something breaks now. Crashes are bounded, so that every run ends."""

    chance: random.Random
    crash_rate: float
    crashes_left: int = 8
    seen: dict[str, int] = field(default_factory=dict)

    def happens(self, what: str, rate: float) -> bool:
        """Draws, and counts what came of it."""
        if self.chance.random() >= rate:
            return False
        self.seen[what] = self.seen.get(what, 0) + 1
        return True

    def crash_at(self, place: str) -> None:
        """Raises Crash, now and then."""
        if self.crashes_left and self.happens(f"crash at {place}", self.crash_rate):
            self.crashes_left -= 1
            raise Crash(place)


@dataclass(frozen=True)
class Record:
    """A record of the log; `poison` where the graph must not take it."""

    value: bytes
    time_us: int
    poison: bool


Log = dict[tuple[str, int], list[Record]]


def event(table: str, key: int | None, at_us: int, operation: int = pb.OPERATION_INSERT, **cells: Any) -> bytes:
    """A serialized row event."""
    made = pb.RowEvent(table=table, operation=operation, event_time_us=at_us)  # type: ignore[arg-type]
    if key is not None:
        made.key.parts.add(integer=key)
    for name, value in cells.items():
        kind = {bool: "boolean", int: "integer", float: "number", str: "text"}[type(value)]
        made.cells.add(column=name, **{kind: value})
    return made.SerializeToString()


def make_log(chance: random.Random, *, count: int | None = None) -> Log:
    """A world of some days, and what a careless world makes of its events on their way."""
    drawn, span_us = chance.randint(60, 360), chance.choice([HOUR, DAY, 6 * DAY])
    count = drawn if count is None else count
    partitions = chance.randint(1, 4)
    told: list[tuple[int, str, bytes, bool]] = []  # broker time, topic, bytes, poison
    erasures = chance.choice([0.0, 0.02, 0.1])
    for number in range(count):
        at_us = START_US + span_us * number // count
        customer = chance.randint(0, 12)
        delay_us = HOUR - S if chance.random() < 0.1 else chance.randint(0, 5 * S)
        if chance.random() < 0.2:
            told.append((at_us + S, "visits", event("visits", None, at_us, customer_id=customer), False))
            continue
        insert = event(
            "payments", number, at_us, customer_id=customer, amount=float(number), shop=f"shop {chance.randint(0, 9)}"
        )
        told.append((at_us + delay_us, "events", insert, False))
        old = chance.randint(max(0, number - 20), number)
        later_us = at_us + chance.randint(0, HOUR)
        if chance.random() < 0.2:
            told.append((later_us, "events", event("payments", old, later_us, pb.OPERATION_UPSERT, fraud=True), False))
        if chance.random() < 0.1:
            moved = event("payments", old, later_us, pb.OPERATION_UPSERT, customer_id=chance.randint(0, 12))
            told.append((later_us, "events", moved, False))
        if chance.random() < 0.05:
            told.append((later_us, "events", event("payments", old, later_us, pb.OPERATION_DELETE), False))
        if chance.random() < 0.1:
            city = event("customers", customer, at_us, pb.OPERATION_UPSERT, city=chance.choice("abc"))
            told.append((at_us, "events", city, False))
        if chance.random() < erasures:
            whose = chance.choice([("customers", customer), ("payments", old)])
            told.append((later_us, "events", event(*whose, at_us, pb.OPERATION_ERASE), False))
        if chance.random() < 0.1:
            told.append((at_us, "events", *poison(chance, at_us)))
    told += [each for each in told if chance.random() < 0.1]  # delivered twice
    told.sort(key=lambda each: (each[0] + chance.randint(0, HOUR // 4), each[2]))  # shuffled within 15 minutes
    log: Log = {(topic, part): [] for topic in ("events", "visits") for part in range(partitions)}
    for time_us, topic, value, bad in told:
        log[topic, chance.randrange(partitions)].append(Record(value, time_us, bad))
    return log


def poison(chance: random.Random, at_us: int) -> tuple[bytes, bool]:
    """What must become a dead letter."""
    return chance.choice(
        [
            bytes(chance.randrange(256) for _ in range(40)) + b"\xff",
            event("nothing", 1, at_us),
            event("payments", 10**6, at_us, amount="much"),
            event("payments", 10**6 + 1, at_us - 2 * HOUR, amount=1.0),  # known two hours late
            event("payments", 10**6 + 2, at_us + DAY, amount=1.0),  # happens tomorrow
            event("payments", None, at_us, unknown=1),
        ]
    ), True


class LogSource:
    """The log as a source: only what the clock has reached; now and then the broker is gone."""

    def __init__(self, log: Log, positions: dict[tuple[str, int], int], clock: Clock, faults: Faults) -> None:
        self._log, self._clock, self._faults = log, clock, faults
        self._next = {place: positions.get(place, 0) for place in log}
        self._gone = 0

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        faults, chance = self._faults, self._faults.chance
        faults.crash_at("poll")
        self._clock.now_us += chance.choice([0, S, 60 * S, HOUR])
        if faults.happens("clock stepped back", 0.01):
            self._clock.now_us -= 300 * S
        if faults.happens("broker gone", 0.02):
            self._gone = chance.randint(1, 5)
        if self._gone:
            self._gone -= 1
            return empty_batch()
        topic = chance.choice(["events", "visits"])
        places = [(part, at) for name, part in self._log if name == topic for at in self._ready(name, part)]
        if not places:
            return empty_batch()
        if chance.random() < 0.3:  # partitions come interleaved in any way, each in its own order
            parts = [part for part, _ in places]
            chance.shuffle(parts)
            turn = {part: iter([at for other, at in places if other == part]) for part in set(parts)}
            places = [(part, next(turn[part])) for part in parts]
        for part, at in places:
            self._next[topic, part] = max(self._next[topic, part], at + 1)
        records = [self._log[topic, part][at] for part, at in places]
        return Batch(
            topic,
            np.array([part for part, _ in places], np.int32),
            np.array([at for _, at in places], np.int64),
            np.array([record.time_us for record in records], np.int64),
            [None] * len(records),
            [record.value for record in records],
        )

    def _ready(self, topic: str, part: int) -> list[int]:
        first, records = self._next[topic, part], self._log[topic, part]
        count = 0
        most = self._faults.chance.randint(1, 60)
        while count < most and first + count < len(records) and records[first + count].time_us <= self._clock.now_us:
            count += 1
        return list(range(first, first + count))

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        return dict(self._next)

    def end_positions(self) -> dict[tuple[str, int], int]:
        return {place: len(records) for place, records in self._log.items()}

    def lag_records(self) -> int:
        return sum(len(records) - self._next[place] for place, records in self._log.items())

    @property
    def exhausted(self) -> bool:
        return self.lag_records() == 0

    def close(self) -> None:
        pass


class DeadLetterLog:
    """Dead letters that are safe once they are flushed; what a crash finds in between is gone."""

    def __init__(self, kept: list[DeadLetter], faults: Faults) -> None:
        self._kept, self._faults = kept, faults
        self._queued: list[DeadLetter] = []

    def append(self, letters: Sequence[DeadLetter]) -> None:
        self._queued += letters

    def flush(self, timeout_s: float) -> None:
        self._faults.crash_at("dead letters, before they are safe")
        self._kept += self._queued
        self._queued = []
        self._faults.crash_at("dead letters, after they are safe")


class WholeLog(LogSource):
    """The log without a clock or a fault, partition after partition."""

    def __init__(self, log: Log) -> None:
        super().__init__(log, {}, Clock(2**62), Faults(random.Random(0), 0.0))

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        for (topic, part), records in self._log.items():
            first = self._next[topic, part]
            if first < len(records):
                self._next[topic, part] = len(records)
                chosen = records[first:]
                return Batch(
                    topic,
                    np.full(len(chosen), part, np.int32),
                    np.arange(first, len(records), dtype=np.int64),
                    np.array([record.time_us for record in chosen], np.int64),
                    [None] * len(chosen),
                    [record.value for record in chosen],
                )
        return empty_batch()

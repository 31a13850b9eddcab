"""The graph that is benched: payments of a few busy and many quiet users at a few busy and many quiet merchants.

power laws on both sides, times uniform over thirty days -> columns -> TemporalGraph.append -> GraphView
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

SCHEMA = """
version: 1
name: bench
tables:
  users: {primary_key: {user_id: integer}}
  merchants: {primary_key: {merchant_id: integer}}
  events:
    primary_key: {event_id: integer}
    time_column: at
    links: {user_id: users, merchant_id: merchants}
"""
EVENTS_PER_NODE = 20
START_US = 1_700_000_000_000_000
SPAN_US = 30 * 86_400 * 1_000_000
BATCH = 100_000
PIECE = 1 << 20  # numbers drawn at once
# Map, record, list entries and their slack, with room for an ingest during the latency bench.
ARENA_BYTES_PER_EVENT = 160

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Columns of length N, in time order: the keys of both parents and the time of each event; 16 bytes an event."""

    user: Int32
    merchant: Int32
    event_time_us: Int64

    def __len__(self) -> int:
        return len(self.user)

    def part(self, count: int) -> Events:
        """The first so many."""
        return Events(self.user[:count], self.merchant[:count], self.event_time_us[:count])

    def batch(self, part: slice) -> Batch:
        """A stretch of them, to be appended."""
        user, merchant = self.user[part].astype(np.int64), self.merchant[part].astype(np.int64)
        return Batch(user, merchant, self.event_time_us[part])


@dataclass(frozen=True)
class Batch:
    """Events as the graph takes them: int64 all."""

    user: Int64
    merchant: Int64
    event_time_us: Int64


def pieces(count: int, size: int) -> Iterator[slice]:
    """Slices of so many at once that cover [0, count)."""
    return (slice(low, min(low + size, count)) for low in range(0, count, size))


def powerlaw_events(count: int, seed: int = 1, piece: int = PIECE) -> Events:
    """Draws users by the square and merchants by the fourth power of a uniform number, for few large hubs.

    `piece` numbers are drawn at once, and how many changes none of them: beside its columns it takes next to no memory.
    """
    random = np.random.default_rng(seed)
    nodes = max(1, count // EVENTS_PER_NODE)

    def draw(power: float) -> Int32:
        keys = np.empty(count, np.int32)
        for part in pieces(count, piece):
            keys[part] = nodes * random.random(part.stop - part.start) ** power
        key_of_rank = random.permutation(nodes)
        for part in pieces(count, piece):
            keys[part] = key_of_rank[keys[part]]
        return keys

    user, merchant = draw(2.0), draw(4.0)
    event_time_us = np.empty(count, np.int64)
    for part in pieces(count, piece):
        event_time_us[part] = random.integers(0, SPAN_US, part.stop - part.start)
    event_time_us.sort()
    event_time_us += START_US
    return Events(user, merchant, event_time_us)


def bench_schema() -> Schema:
    """Two tables without time and an event row with two links, no cells."""
    return parse_schema(SCHEMA)


def build(events: Events, more: int) -> tuple[TemporalGraph, float]:
    """Appends the events in batches; returns the graph, with room for `more`, and the CPU seconds of all threads."""
    graph = TemporalGraph.create(bench_schema(), arena_bytes=(len(events) + more) * ARENA_BYTES_PER_EVENT + (1 << 30))
    seconds = 0.0
    for part in pieces(len(events), BATCH):
        keys, batch = np.arange(part.start, part.stop), events.batch(part)
        started = time.process_time()
        append(graph, keys, batch)
        seconds += time.process_time() - started
    return graph, seconds


def append(graph: TemporalGraph, keys: Int64, batch: Batch) -> None:
    """Appends a batch of events under these keys."""
    graph.append(
        "events",
        keys,
        event_time_us=batch.event_time_us,
        parents={"user_id": batch.user, "merchant_id": batch.merchant},
    )

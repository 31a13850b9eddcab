"""The graph that is benched: payments of a few busy and many quiet users at a few busy and many quiet merchants.

power laws on both sides, times uniform over thirty days -> columns -> TemporalGraph.append -> GraphView
"""

from __future__ import annotations

import time
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
# Map, record, list entries and their slack, with room for an ingest during the latency bench.
ARENA_BYTES_PER_EVENT = 160

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Columns of length N, in time order: the keys of both parents and the time of each event."""

    user: Int64
    merchant: Int64
    event_time_us: Int64

    def __len__(self) -> int:
        return len(self.user)

    def part(self, count: int) -> Events:
        """The first so many."""
        return Events(self.user[:count], self.merchant[:count], self.event_time_us[:count])


def powerlaw_events(count: int, seed: int = 1) -> Events:
    """Draws users by the square and merchants by the fourth power of a uniform number, for few large hubs."""
    random = np.random.default_rng(seed)
    nodes = max(1, count // EVENTS_PER_NODE)

    def draw(power: float) -> Int64:
        ranks = (nodes * random.random(count) ** power).astype(np.int64)
        keys: Int64 = random.permutation(nodes)[ranks]
        return keys

    user, merchant = draw(2.0), draw(4.0)
    return Events(user, merchant, START_US + np.sort(random.integers(0, SPAN_US, count)))


def bench_schema() -> Schema:
    """Two tables without time and an event row with two links, no cells."""
    return parse_schema(SCHEMA)


def build(events: Events, more: int) -> tuple[TemporalGraph, float]:
    """Appends the events in batches; returns the graph, with room for `more`, and the CPU seconds of all threads."""
    graph = TemporalGraph.create(bench_schema(), arena_bytes=(len(events) + more) * ARENA_BYTES_PER_EVENT + (1 << 30))
    seconds = 0.0
    for low in range(0, len(events), BATCH):
        part = slice(low, min(low + BATCH, len(events)))
        keys = np.arange(part.start, part.stop)
        started = time.process_time()
        append(graph, keys, events, part)
        seconds += time.process_time() - started
    return graph, seconds


def append(graph: TemporalGraph, keys: Int64, events: Events, part: slice) -> None:
    """Appends one stretch of the events under these keys."""
    graph.append(
        "events",
        keys,
        event_time_us=events.event_time_us[part],
        parents={"user_id": events.user[part], "merchant_id": events.merchant[part]},
    )

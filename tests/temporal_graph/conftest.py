"""A small payments schema and its events, for the tests of the native graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.snapshots import IMAGE, Snapshot, Snapshots

PAYMENTS = """
version: 1
name: payments
tables:
  customers:
    primary_key: {customer_id: integer}
    columns: {segment: categorical}
  payments:
    primary_key: {payment_id: integer}
    time_column: paid_at
    known_time: broker
    lateness: 1h
    future: 1m
    columns:
      amount: numerical
      fraud: {kind: boolean, outcome: true}
      tags: multicategorical
    links: {customer_id: customers}
  visits:
    time_column: at
    links: {customer_id: customers}
"""


@pytest.fixture
def schema() -> Schema:
    """Customers, their payments, and visits without a key."""
    return parse_schema(PAYMENTS)


@pytest.fixture
def schema_text() -> str:
    """The schema as it is written."""
    return PAYMENTS


@pytest.fixture
def payment() -> Callable[..., bytes]:
    """Build a serialized payment event."""

    def build(
        key: int,
        event_time_us: int,
        *,
        customer: int | None = None,
        amount: float | None = None,
        fraud: bool | None = None,
        known_time_us: int | None = None,
        operation: str = "INSERT",
    ) -> bytes:
        event = pb.RowEvent(
            table="payments",
            operation=pb.Operation.Value(f"OPERATION_{operation}"),
            event_time_us=event_time_us,
            known_time_us=known_time_us,
        )
        event.key.parts.add(integer=key)
        if customer is not None:
            event.cells.add(column="customer_id", integer=customer)
        if amount is not None:
            event.cells.add(column="amount", number=amount)
        if fraud is not None:
            event.cells.add(column="fraud", boolean=fraud)
        return event.SerializeToString()

    return build


@pytest.fixture
def snap() -> Callable[[Snapshots, TemporalGraph], Snapshot]:
    """Makes a snapshot of a graph as it is."""

    def made(snapshots: Snapshots, graph: TemporalGraph) -> Snapshot:
        folder = snapshots.making()
        image = graph.image(folder / IMAGE)
        image.copy()
        settled = image.settle()
        fingerprint, ids = graph.schema.fingerprint(), graph.topic_ids
        return snapshots.add(folder, settled, size=image.finish(), fingerprint=fingerprint, topic_ids=ids)

    return made

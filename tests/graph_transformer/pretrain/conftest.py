"""A shop in a real graph: customers with a country buy every other day; what one buys is what one bought before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.config import ModelConfig
from graph_transformer.finetune.examples import Examples, OutcomeLabels, TableLabels
from graph_transformer.target import Kind, Target
from graph_transformer.task import Interval, Splits, Task, Training
from online_sampler.plan import SamplingPlan
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema
from temporal_graph.view import GraphView

DAY_US = 86_400_000_000
START_US = 1_600_000_000_000_000
CUSTOMERS, DAYS = 60, 60

SCHEMA = """
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
    columns:
      country: categorical
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns:
      product: categorical
      total: numerical
      gift: boolean
      returned: {kind: boolean, outcome: true}
    links:
      customer_id: customers
"""


@dataclass(frozen=True)
class Shop:
    """Orders in the order of their time, arrays of one length, and the graph."""

    graph: TemporalGraph
    customer: NDArray[np.int64]
    time_us: NDArray[np.int64]
    product: NDArray[np.int64]
    total: NDArray[np.float64]

    @property
    def view(self) -> GraphView:
        """A read face of the graph."""
        return self.graph.view()


def order(key: int, customer: int, at_us: int, product: int, total: float, gift: bool) -> bytes:
    """An order as a serialized event."""
    event = row_event_pb2.RowEvent(table="orders", operation=row_event_pb2.OPERATION_INSERT, event_time_us=at_us)
    event.key.parts.add(integer=key)
    event.cells.add(column="customer_id", integer=customer)
    event.cells.add(column="product", text=f"p{product}")
    event.cells.add(column="total", number=total)
    if gift is not None:
        event.cells.add(column="gift", boolean=gift)
    return event.SerializeToString()


def returned(key: int, is_returned: bool, at_us: int) -> bytes:
    """What became of an order, as a serialized event."""
    event = row_event_pb2.RowEvent(
        table="orders", operation=row_event_pb2.OPERATION_UPSERT, event_time_us=at_us, known_time_us=at_us
    )
    event.key.parts.add(integer=key)
    event.cells.add(column="returned", boolean=is_returned)
    return event.SerializeToString()


def customer(key: int) -> bytes:
    """A customer as a serialized event."""
    event = row_event_pb2.RowEvent(table="customers", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=key)
    event.cells.add(column="country", text=f"c{key % 3}")
    return event.SerializeToString()


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """The shop: each customer buys one product on every second or every fourth day, and is known to return odd ones."""
    random = np.random.default_rng(3)
    rows = []
    for buyer in range(CUSTOMERS):
        step = 2 if buyer % 2 else 4
        days = np.arange(random.integers(0, step), DAYS, step)
        at = START_US + days * DAY_US + random.integers(0, DAY_US // 4, len(days))
        rows += [(int(when), buyer, buyer % 5, float(np.exp(buyer % 5 + random.normal() * 0.1))) for when in at]
    rows.sort()
    graph = TemporalGraph.create(parse_schema(SCHEMA), arena_bytes=32 << 20)
    assert graph.apply([customer(key) for key in range(CUSTOMERS)]).rejected == ()
    events = [order(key, who, at, what, total, what > 2) for key, (at, who, what, total) in enumerate(rows)]
    reports = [returned(key, row[2] % 2 == 1, row[0] + DAY_US) for key, row in enumerate(rows)]
    assert graph.apply(events).rejected == ()
    assert graph.apply(reports).rejected == ()
    at_us, who, what, total = (np.array(column) for column in zip(*rows, strict=True))
    yield Shop(graph, who.astype(np.int64), at_us.astype(np.int64), what.astype(np.int64), total)
    graph.close()


def days(start: float, end: float) -> Interval:
    """From one day of the shop to another."""
    return Interval(START_US + int(start * DAY_US), START_US + int(end * DAY_US))


@pytest.fixture(scope="session")
def task() -> Task:
    """Will an order be returned? Asked of each order before it happens; trained on days 10 to 30."""
    return Task(
        name="returns",
        target=Target(Kind.BINARY, "orders", event_level=True, column="returned"),
        splits=Splits(days(10, 30), days(32, 44), test=days(46, 60)),
        sampling_plan=SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 4}}, {"hop2": {"default": 12}}]}),
        model=ModelConfig(width=16, heads=4, dropout=0.0, token_dropout=0.0),
        training=Training(steps=60, batch=64, evaluate_every=30, ema=0.9, learning_rate=1e-2),
    )


@pytest.fixture(scope="session")
def entity_task(task: Task) -> Task:
    """Will a customer buy within three days? Asked of each customer every third day."""
    from dataclasses import replace

    target = Target(Kind.BINARY, "customers", event_level=False, horizon_us=3 * DAY_US)
    return replace(task, name="buys", target=target)


@pytest.fixture(scope="session")
def labels(shop: Shop, task: Task) -> OutcomeLabels:
    """What the graph knows of returned orders."""
    return OutcomeLabels(shop.view, task.target)


@pytest.fixture(scope="session")
def entity_labels(shop: Shop) -> TableLabels:
    """Whether customers bought within three days after each third day."""
    found = []
    keys = np.array(shop.view.keys("customers", np.arange(CUSTOMERS)))
    for at in range(START_US + 3 * DAY_US, START_US + DAYS * DAY_US, 3 * DAY_US):
        bought = np.unique(shop.customer[(shop.time_us > at) & (shop.time_us <= at + 3 * DAY_US)])
        found.append((np.arange(CUSTOMERS), np.full(CUSTOMERS, at), np.isin(keys, bought)))
    row, time_us, label = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return TableLabels(Examples(row, time_us, time_us, time_us + 3 * DAY_US, label.astype(np.float32)))

"""A small world of card fraud in a real graph: terminals go bad for days, and it is known a day after each payment.

What a payment's own columns say about fraud is nothing; what its terminal's known past says is nearly everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.finetune.examples import Examples, OutcomeLabels, examples_of
from graph_transformer.finetune.feed import sample
from graph_transformer.target import Kind, Target
from graph_transformer.task import Interval, Splits, Task, Training
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.view import GraphView

DAY_US = 86_400_000_000
START_US = 1_530_403_200_000_000  # 2018-07-01
DELAY_US = DAY_US
DAYS, A_DAY = 24, 240
CUSTOMERS, TERMINALS = 40, 30


@dataclass(frozen=True)
class World:
    """Payments in the order of their time, arrays of one length, and the graph with them and their reports."""

    graph: TemporalGraph
    event_time_us: NDArray[np.int64]
    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    fraud: NDArray[np.bool_]

    @property
    def view(self) -> GraphView:
        """A read face of the graph."""
        return self.graph.view()

    def labels(self, task: Task) -> OutcomeLabels:
        """The labels the graph has of a task."""
        return OutcomeLabels(self.view, task.target)


def payment(key: int, at_us: int, customer: int, terminal: int, amount: float) -> bytes:
    """A payment as a serialized event."""
    event = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_INSERT, event_time_us=at_us)
    event.key.parts.add(integer=key)
    event.cells.add(column="amount", number=amount)
    event.cells.add(column="customer_id", integer=customer)
    event.cells.add(column="terminal_id", integer=terminal)
    return event.SerializeToString()


def report(key: int, fraud: bool, known_us: int) -> bytes:
    """What became known of a payment, as a serialized event."""
    event = row_event_pb2.RowEvent(
        table="transactions", operation=row_event_pb2.OPERATION_UPSERT, event_time_us=known_us, known_time_us=known_us
    )
    event.key.parts.add(integer=key)
    event.cells.add(column="fraud", boolean=fraud)
    return event.SerializeToString()


def grown(schema: Schema, *, lie_from_us: int | None = None) -> World:
    """The world; with `lie_from_us`, reports that become known from then on say the opposite of the truth, and payments
    that come after it are a hundred times as large.
    """
    random = np.random.default_rng(11)
    count = DAYS * A_DAY
    event = START_US + np.sort(random.integers(0, DAYS * DAY_US, count))
    customer, terminal = random.integers(0, CUSTOMERS, count), random.integers(0, TERMINALS, count)
    day = (event - START_US) // DAY_US
    # Each terminal is bad for six days in a row, from a day of its own on.
    bad = (day + random.integers(0, DAYS, TERMINALS)[terminal]) % DAYS < 6
    fraud = random.random(count) < np.where(bad, 0.9, 0.01)
    amount = random.lognormal(3, 1, count)
    known = event + DELAY_US
    told = fraud.copy()
    if lie_from_us is not None:
        told[known >= lie_from_us] ^= True
        amount[event > lie_from_us] *= 100.0
    graph = TemporalGraph.create(schema, arena_bytes=64 << 20)
    inserts = [payment(n, *row) for n, row in enumerate(zip(event.tolist(), customer.tolist(), terminal.tolist(),
                                                            amount.tolist(), strict=True))]  # fmt: skip
    reports = [report(n, told[n].item(), known[n].item()) for n in range(count)]
    assert graph.apply(inserts).rejected == ()
    assert graph.apply(reports).rejected == ()
    return World(graph, event, customer, terminal, fraud)


@pytest.fixture(scope="session")
def world(payments_schema: Schema) -> Iterator[World]:
    """The small world in a real graph."""
    built = grown(payments_schema)
    yield built
    built.graph.close()


def days(start: float, end: float) -> Interval:
    """From one day of the world to another."""
    return Interval(START_US + int(start * DAY_US), START_US + int(end * DAY_US))


def small_task() -> Task:
    """Train on days 6 to 13, choose on 15 to 17, test on 20 to 23; small, for seconds of training."""
    return Task(
        name="fraud",
        target=Target(Kind.BINARY, "transactions", event_level=True, column="fraud"),
        entity="customer_id",
        precision_at=5,
        splits=Splits(train=days(6, 14), validation=days(15, 18), test=days(20, 24)),
        sampling_plan=SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 32}}]}),
        model=ModelConfig(width=16, heads=4, dropout=0.1, token_dropout=0.2),
        training=Training(steps=150, batch=64, rare_share=0.375, evaluate_every=75, ema=0.95, learning_rate=5e-3),
    )


def encoding_of(world: World, task: Task, examples: Examples) -> Encoding:
    """Statistics of some examples, bound to the world's graph."""
    view = world.view
    some = np.linspace(0, len(examples) - 1, min(64, len(examples)), dtype=np.int64)
    sampled = sample(Sampler(view, task.sampling_plan), task.target, examples.select(some))
    return Encoding(fit_statistics([sampled], view.schema, view.strings, target=task.target), view.schema, view.strings)


@pytest.fixture(scope="session")
def task() -> Task:
    """The task of the small world, `small_task`."""
    return small_task()


@pytest.fixture(scope="session")
def examples(world: World, task: Task) -> Examples:
    """The training examples of the small world."""
    return examples_of(world.labels(task), task.target, task.splits.train, known_by_us=None)


@pytest.fixture(scope="session")
def encoding(world: World, task: Task, examples: Examples) -> Encoding:
    """What the model reads of the small world, by statistics of its training examples."""
    return encoding_of(world, task, examples)


@pytest.fixture(scope="session")
def quick(task: Task) -> Task:
    """The same task for a few steps only."""
    return replace(task, training=replace(task.training, steps=8, evaluate_every=4))


@pytest.fixture(scope="session")
def grow() -> Callable[..., World]:
    """Builds the world anew, also with reports and amounts that lie from a time on."""
    return grown


def row_event(table: str, key: int, at_us: int | None, cells: Mapping[str, object], known_us: int | None) -> bytes:
    """A row as a serialized event; whole numbers are keys of links."""
    event = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=key)
    if at_us is not None:
        event.event_time_us = at_us
        event.known_time_us = at_us if known_us is None else known_us
    for name, value in cells.items():
        kinds = {bool: "boolean", int: "integer", float: "number", str: "text"}
        event.cells.add(column=name, **{kinds[type(value)]: value})
    return event.SerializeToString()


@pytest.fixture
def plant() -> Iterator[Callable[..., GraphView]]:
    """Grows a graph from a schema's YAML and rows (table, key, event time or None, cells[, known time])."""
    graphs = []

    def planted(text: str, rows: Iterable[tuple[Any, ...]]) -> GraphView:
        graphs.append(TemporalGraph.create(parse_schema(text), arena_bytes=64 << 20))
        events = [row_event(*row[:4], row[4] if len(row) > 4 else None) for row in rows]
        assert graphs[-1].apply(events).rejected == ()
        return graphs[-1].view()

    yield planted
    for graph in graphs:
        graph.close()

"""A shop small enough to draw: items of kinds, some without any cell, and who bought which of them when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import Statistics, fit_statistics
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.identity import BoundIdentities, Identities, identities_of
from graph_transformer.ranking.model import RankingModel, build_ranking
from graph_transformer.ranking.plans import default_plan
from graph_transformer.ranking.towers import BoundTowers
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.task import Task
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.view import GraphView

SHOP = """
version: 1
name: shop
tables:
  kinds:
    primary_key: {kind: string}
    columns: {taxed: boolean}
  users:
    primary_key: {user_id: integer}
  items:
    primary_key: {item_id: string}
    time_column: since
    columns: {price: numerical}
    links: {kind: kinds}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns: {amount: numerical}
    links: {user_id: users, item_id: items}
"""
TARGET = Target(
    Kind.RANKING, "users", event_level=False, horizon_us=10, ranked=Ranked("orders", "user_id", "item_id", "items", 3)
)
USERS, ITEMS, ORDERS = 6, 10, 8


def item_event(name: str, since_us: int, price: float, kind: str = "toy") -> bytes:
    """An item, or a new price of one."""
    event = pb.RowEvent(table="items", operation=pb.OPERATION_UPSERT, event_time_us=since_us, known_time_us=since_us)
    event.key.parts.add(text=name)
    event.cells.add(column="price", number=price)
    event.cells.add(column="kind", text=kind)
    return event.SerializeToString()


def order_event(key: int, user: int, item: str, at_us: int) -> bytes:
    """A user buys an item."""
    event = pb.RowEvent(table="orders", operation=pb.OPERATION_INSERT, event_time_us=at_us, known_time_us=at_us)
    event.key.parts.add(integer=key)
    event.cells.add(column="amount", number=1.0)
    event.cells.add(column="user_id", integer=user)
    event.cells.add(column="item_id", text=item)
    return event.SerializeToString()


def shop_events(names: Sequence[str]) -> list[bytes]:
    """Items at time 10, then ORDERS orders of each user, the k-th of user u at 100 + 10k + u."""
    random = np.random.default_rng(5)
    events = [
        item_event(name, 10, float(index + 1), "toy" if index % 2 else "book") for index, name in enumerate(names)
    ]
    for place in range(ORDERS):
        for user in range(USERS):
            item = names[int(random.integers(0, len(names)))]
            events.append(order_event(place * USERS + user, user, item, 100 + 10 * place + user))
    return events


@dataclass(frozen=True)
class Shop:
    """A graph of the shop with towers of random weights on it."""

    graph: TemporalGraph
    view: GraphView
    task: Task
    statistics: Statistics
    encoding: Encoding
    identities: Identities
    model: RankingModel

    def towers(self, view: GraphView | None = None) -> BoundTowers:
        """The towers on the shop's graph, or on another of its schema."""
        at = self.view if view is None else view
        encoding = Encoding(self.statistics, at.schema, at.strings, identified="items")
        return BoundTowers(self.model, encoding, BoundIdentities(self.identities, at), at, self.task)


@pytest.fixture(scope="session")
def schema() -> Schema:
    """Kinds, items of a kind, users and orders."""
    return parse_schema(SHOP)


Opened = Callable[[Sequence[bytes]], TemporalGraph]


@pytest.fixture
def opened(schema: Schema) -> Iterator[Opened]:
    """Makes a graph of events."""
    graphs: list[TemporalGraph] = []

    def build(events: Sequence[bytes]) -> TemporalGraph:
        graph = TemporalGraph.create(schema, arena_bytes=64 << 20)
        graphs.append(graph)
        assert graph.apply(list(events), backfill=True).rejected == ()
        return graph

    yield build
    for graph in graphs:
        graph.close()


@pytest.fixture
def shop(opened: Opened, schema: Schema) -> Shop:
    """The shop with ITEMS items, of which training knew all but the last two."""
    names = [f"item {index}" for index in range(ITEMS)]
    graph = opened(shop_events(names))
    view = graph.view()
    ranking = RankingConfig(history=4, tower_history=4, dimension=8)
    model = ModelConfig(width=8, heads=2, sums=2, dropout=0.0, token_dropout=0.0)
    plan = default_plan(schema, TARGET, ranking)
    task = Task("next", TARGET, Splits(Interval(0, 1000)), plan, model, ranking=ranking)
    users = np.arange(USERS)
    neighborhood = Sampler(view, plan).sample_rows("users", users, np.full(USERS, 150), as_of=True)
    statistics = fit_statistics([neighborhood], schema, view.strings, target=TARGET)
    encoding = Encoding(statistics, schema, view.strings, identified="items")
    identities = identities_of(view, "items", view.row_index("items", names[:-2]))
    torch.manual_seed(3)
    built = build_ranking(encoding, task, identities.count).eval()
    return Shop(graph, view, task, statistics, encoding, identities, built)

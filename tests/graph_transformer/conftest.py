"""Neighborhoods built by hand, small enough to draw: what the sampler would return, with its field names and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graph_transformer.calibration import Affine, Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.config import ModelConfig
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.heads import Unit
from graph_transformer.model import GraphTransformer
from graph_transformer.target import Kind, Target
from graph_transformer.task import Interval, Splits, Task
from online_sampler.plan import SamplingPlan
from temporal_graph.schema import ColumnKind, Schema, Table, parse_schema
from temporal_graph.time_rule import ALWAYS_US

PAYMENTS = """
version: 1
name: payments
tables:
  customers:
    primary_key: {customer_id: integer}
  terminals:
    primary_key: {terminal_id: integer}
  transactions:
    primary_key: {transaction_id: integer}
    time_column: at
    columns:
      amount: numerical
      fraud: {kind: boolean, outcome: true}
    links:
      customer_id: customers
      terminal_id: terminals
"""

EVERY_KIND = """
version: 1
name: orders
tables:
  customers:
    primary_key: {customer_id: string}
    columns:
      country: categorical
      tags: multicategorical
      born: timestamp
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns:
      total: numerical
      weight: numerical
      express: boolean
      returned: {kind: boolean, outcome: true}
      note: text
      picture: {kind: embedding, dim: 3}
    links:
      customer_id: customers
"""

KINDS = {
    "numerical": (ColumnKind.NUMERICAL,),
    "coded": (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT),
    "boolean": (ColumnKind.BOOLEAN,),
    "timestamp": (ColumnKind.TIMESTAMP,),
    "embedding": (ColumnKind.EMBEDDING,),
}


def names_of(table: Table, field_name: str) -> tuple[str, ...]:
    """Columns of the kinds that a field of `TableColumns` holds."""
    return tuple(column.name for column in table.columns if column.kind in KINDS[field_name])


@dataclass(frozen=True)
class Columns:
    """The fields of `TableColumns`."""

    table: str
    node: NDArray[np.int32]
    numerical: NDArray[np.float64]
    coded: NDArray[np.int32]
    boolean: NDArray[np.uint8]
    timestamp: NDArray[np.int64]
    embedding: NDArray[np.float32]
    numerical_names: tuple[str, ...]
    coded_names: tuple[str, ...]
    boolean_names: tuple[str, ...]
    timestamp_names: tuple[str, ...]
    embedding_names: tuple[str, ...]


@dataclass(frozen=True)
class Sampled:
    """The fields of `Neighborhood`."""

    seed_offset: NDArray[np.int64]
    table: NDArray[np.uint8]
    row: NDArray[np.int64]
    hop: NDArray[np.uint8]
    parent: NDArray[np.int32]
    link: NDArray[np.int16]
    event_time_us: NDArray[np.int64]
    known_time_us: NDArray[np.int64]
    version: NDArray[np.int32]
    cutoff_time_us: NDArray[np.int64]
    edge_source: NDArray[np.int32]
    edge_target: NDArray[np.int32]
    edge_link: NDArray[np.int16]
    edge_offset: NDArray[np.int64]
    columns: dict[str, Columns]
    unseen: tuple[str, ...] = ()


@dataclass
class Drawing:
    """Draws neighborhoods node by node: `seed`, then `row` under a node already drawn, then `edge`; `build` ends it.

    It is also the graph's dictionaries: `schema` and `strings`, which is what a predictor reads of a view.
    """

    schema: Schema
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[tuple[int, int, str]] = field(default_factory=list)
    cutoffs: list[int] = field(default_factory=list)

    def strings(self, table: str, column: str, codes: NDArray[np.int32]) -> Sequence[str | None]:
        """Texts of codes, as a view gives them."""
        known = self.texts.get((table, column), [])
        return [known[code - 1] if 0 < code <= len(known) else None for code in codes.tolist()]

    def code(self, table: str, column: str, text: str | None) -> int:
        """The code of a text, a new one if need be."""
        if text is None:
            return 0
        known = self.texts.setdefault((table, column), [])
        if text not in known:
            known.append(text)
        return known.index(text) + 1

    def seed(self, table: str, cutoff: int, cells: dict[str, Any] | None = None, event: int | None = None) -> int:
        """Begins a neighborhood; returns its node."""
        self.cutoffs.append(cutoff)
        event = cutoff + 1 if event is None else event
        return self._add(table=table, cells=cells or {}, event=event, known=event, hop=0, parent=-1, link="", row=-1)

    def row(
        self,
        parent: int,
        link: str,
        cells: dict[str, Any] | None = None,
        event: int = ALWAYS_US,
        known: int | None = None,
    ) -> int:
        """Draws a row reached from a node by a link; returns its node."""
        owner = self.nodes[parent]
        target = next(
            (found.parent if found.forward == link else found.child)
            for found in self.schema.links
            if link in (found.forward, found.backward)
        )
        node = self._add(
            table=target,
            cells=cells or {},
            event=event,
            known=event if known is None else known,
            hop=owner["hop"] + 1,
            parent=parent,
            link=link,
            row=len(self.nodes),
        )
        self.edges.append((parent, node, link))
        return node

    def siblings(self, node: int, column: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> int:
        """Draws the row that a node points to by a column, and other children of it (event time, cells); returns it."""
        (link,) = (x for x in self.schema.links if (x.child, x.name) == (self.nodes[node]["table"], column))
        parent = self.row(node, link.forward)
        for event, cells in rows:
            self.row(parent, link.backward, cells, event=event)
        return parent

    def edge(self, source: int, target: int, link: str) -> None:
        """Draws another edge to a row that is already there."""
        self.edges.append((source, target, link))

    def _add(self, **node: Any) -> int:
        self.nodes.append(node | {"sample": len(self.cutoffs) - 1})
        return len(self.nodes) - 1

    def build(self) -> Sampled:
        """Return what was drawn, nodes breadth first within each seed, and start anew (dictionaries stay)."""
        order = sorted(range(len(self.nodes)), key=lambda n: (self.nodes[n]["sample"], self.nodes[n]["hop"], n))
        place = {node: position for position, node in enumerate(order)} | {-1: -1}
        nodes = [self.nodes[n] for n in order]
        edges = sorted((place[s], place[t], self.schema.edge_types.index(link)) for s, t, link in self.edges)
        tables = [table.name for table in self.schema.tables]
        samples = np.array([node["sample"] for node in nodes])
        edge_sample = samples[[source for source, _, _ in edges]] if edges else np.empty(0, dtype=np.int64)
        ends = np.arange(len(self.cutoffs) + 1)
        built = Sampled(
            seed_offset=np.searchsorted(samples, ends).astype(np.int64),
            table=np.array([tables.index(node["table"]) for node in nodes], dtype=np.uint8),
            row=np.array([node["row"] for node in nodes], dtype=np.int64),
            hop=np.array([node["hop"] for node in nodes], dtype=np.uint8),
            parent=np.array([place[node["parent"]] for node in nodes], dtype=np.int32),
            link=np.array(
                [self.schema.edge_types.index(n["link"]) if n["link"] else -1 for n in nodes], dtype=np.int16
            ),
            event_time_us=np.array([node["event"] for node in nodes], dtype=np.int64),
            known_time_us=np.array([node["known"] for node in nodes], dtype=np.int64),
            version=np.zeros(len(nodes), dtype=np.int32),
            cutoff_time_us=np.array(self.cutoffs, dtype=np.int64),
            edge_source=np.array([edge[0] for edge in edges], dtype=np.int32),
            edge_target=np.array([edge[1] for edge in edges], dtype=np.int32),
            edge_link=np.array([edge[2] for edge in edges], dtype=np.int16),
            edge_offset=np.searchsorted(edge_sample, ends).astype(np.int64),
            columns={name: self._columns(name, nodes) for name in tables if any(n["table"] == name for n in nodes)},
        )
        self.nodes, self.edges, self.cutoffs = [], [], []
        return built

    def _columns(self, name: str, nodes: list[dict[str, Any]]) -> Columns:
        table = self.schema.table(name)
        at = [position for position, node in enumerate(nodes) if node["table"] == name]
        cells = [nodes[position]["cells"] for position in at]
        names = {f"{field_name}_names": names_of(table, field_name) for field_name in KINDS}

        def gather(field_name: str, null: Any, dtype: Any) -> NDArray[Any]:
            columns = names_of(table, field_name)
            values = [[null if row.get(column) is None else row[column] for column in columns] for row in cells]
            return np.array(values, dtype=dtype).reshape(len(cells), len(columns))

        coded = [[self.code(name, c, row.get(c)) for c in names_of(table, "coded")] for row in cells]
        vectors = [
            np.concatenate([row.get(c.name) or [np.nan] * c.dim for c in table.columns if c.dim] or [[]])
            for row in cells
        ]
        return Columns(
            table=name,
            node=np.array(at, dtype=np.int32),
            numerical=gather("numerical", np.nan, np.float64),
            coded=np.array(coded, dtype=np.int32).reshape(len(cells), -1),
            boolean=gather("boolean", 2, np.uint8),
            timestamp=gather("timestamp", ALWAYS_US, np.int64),
            embedding=np.array(vectors, dtype=np.float32).reshape(len(cells), -1),
            **names,
        )


@pytest.fixture(scope="session")
def payments_schema() -> Schema:
    """Customers, terminals, and transactions with an amount and a late outcome."""
    return parse_schema(PAYMENTS)


@pytest.fixture
def draw() -> Callable[[str], Drawing]:
    """Draws neighborhoods of any schema, given as YAML."""
    return lambda text: Drawing(parse_schema(text))


@pytest.fixture
def payments(payments_schema: Schema) -> Drawing:
    """Draws neighborhoods of payments."""
    return Drawing(payments_schema)


@pytest.fixture
def grown_payments() -> Drawing:
    """Draws payments of a schema that has a number more, before the one that training knew."""
    return Drawing(
        parse_schema(PAYMENTS.replace("      amount: numerical\n", "      tip: numerical\n      amount: numerical\n"))
    )


@pytest.fixture
def orders() -> Drawing:
    """Draws neighborhoods of orders, whose two tables have a column of every kind."""
    return Drawing(parse_schema(EVERY_KIND))


@pytest.fixture
def draw_history() -> Callable[..., Sampled]:
    """Draw B payments with a random history each: `rows` per customer and per terminal, labels known for half of it."""
    return drawn_history


DAY_US = 86_400_000_000
CUSTOMER = "transactions.customer_id->customers.customer_id"
TERMINAL = "transactions.terminal_id->terminals.terminal_id"
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"
OF_TERMINAL = "terminals.terminal_id->transactions.terminal_id"
WAYS = ((CUSTOMER, OF_CUSTOMER), (TERMINAL, OF_TERMINAL))


@pytest.fixture(scope="session")
def ways() -> tuple[tuple[str, str], ...]:
    """The ways from a payment to those of its customer, and to those at its terminal: there and back."""
    return WAYS


def drawn_history(drawing: Drawing, seeds: int, rows: int, seed: int = 0, labels: bool = True) -> Sampled:
    """As the fixture `draw_history` says; the numbers depend on `seed` only, not on `labels`."""
    random = np.random.default_rng(seed)
    now = 1_534_000_000_000_000
    for position in range(seeds):
        cutoff = now + position * 3_600_000_000
        amount = float(random.lognormal(3, 1))
        root = drawing.seed("transactions", cutoff, {"amount": amount})
        for forward, backward in WAYS:
            parent = drawing.row(root, forward)
            for _ in range(int(random.integers(0, rows + 1))):
                age = int(random.exponential(5) * DAY_US)
                fraud = int(random.random() < 0.3) if age > 7 * DAY_US else None
                cells = {"amount": float(random.lognormal(3, 1)), "fraud": fraud if labels else None}
                drawing.row(parent, backward, cells, event=cutoff - age)
    return drawing.build()


@pytest.fixture
def checkpoint(payments: Drawing) -> Checkpoint:
    """A checkpoint of a model of payments, not trained, with a calibration and a metric."""
    neighborhood = drawn_history(Drawing(payments.schema), 16, 20, seed=9)
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target)
    encoding = Encoding(statistics, payments.schema, payments.strings)
    torch.manual_seed(1)
    config = ModelConfig()
    task = Task(
        name="fraud",
        target=target,
        splits=Splits(Interval(0, 10)),
        sampling_plan=SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 64}}]}),
        model=config,
    )
    return Checkpoint(
        task=task,
        fingerprint=payments.schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=config,
        unit=Unit(),
        calibration=Calibration(Affine((0.8,), (-0.1,)), -2.0),
        weights=GraphTransformer(encoding.layout(), config, 1).state_dict(),
        metrics={"test": {"average_precision": 0.5}},
    )

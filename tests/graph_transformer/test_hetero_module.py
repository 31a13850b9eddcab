from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.layout import Layout
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.hetero_module import HeteroModule
from graph_transformer.target import Kind, Target

pytest.importorskip("torch_geometric")
CUSTOMER = ("transactions", "customer_id", "customers")
OF_CUSTOMER = ("customers", "rev_customer_id", "transactions")


class OwnRow(HeteroModule):
    """Answers from the seed's own row."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__(layout, config, outputs)
        self.head = nn.Linear(config.width, outputs)

    def answer(self, data: Any) -> Tensor:
        """Reads the seeds' vectors."""
        seeds = data[self.seed_table]
        output: Tensor = self.head(seeds.x[seeds.seed])
        return output


def encoded(payments: Any, neighborhood: Any) -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target)
    return Encoding(statistics, payments.schema, payments.strings)


def test_rows_and_edges_are_those_of_the_neighborhood(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Every row is one of its table, every edge is there in both directions, and seeds are where they were."""
    neighborhood = draw_history(payments, 3, 6)
    batch = collate(neighborhood, encoding := encoded(payments, neighborhood))
    model = OwnRow(encoding.layout(), ModelConfig(), 2).eval()
    data = model.hetero_data(batch)
    names = [table.name for table in payments.schema.tables]
    for name in names:
        assert data[name].x.shape == (int((neighborhood.table == names.index(name)).sum()), 32)
    edges = data[CUSTOMER].edge_index
    assert torch.equal(edges, data[OF_CUSTOMER].edge_index.flip(0))
    assert edges.shape[1] + data["transactions", "terminal_id", "terminals"].edge_index.shape[1] == len(
        neighborhood.edge_source
    )
    rows = model.rows(batch)
    assert torch.equal(data["transactions"].x[data["transactions"].seed], rows[neighborhood.seed_offset[:-1]])
    seeds = data["transactions"].seed
    assert {int(child) for child in edges[0]} >= set(seeds.tolist())
    assert model(batch).shape == (3, 2)


def test_what_a_batch_lacks_is_there_and_empty(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A seed alone has every table and link of the metadata, so that one model fits every batch."""
    layout = (encoding := encoded(payments, draw_history(payments, 3, 6))).layout()
    payments.seed("transactions", 1000, {"amount": 1.0})
    model = OwnRow(layout, ModelConfig(), 1)
    data = model.hetero_data(collate(payments.build(), encoding))
    tables, edge_types = model.metadata
    assert (sorted(data.node_types), sorted(data.edge_types)) == (sorted(tables), sorted(edge_types))
    assert data["customers"].x.shape == (0, 32)
    assert data[CUSTOMER].edge_index.shape == (2, 0)

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graph_transformer.hetero import to_hetero_data

pytest.importorskip("torch_geometric")

OF_CUSTOMER = "customers.customer_id->transactions.customer_id"
CUSTOMER = "transactions.customer_id->customers.customer_id"


def test_rows_edges_and_cells_are_all_there(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Every row is a node of its table, every edge leads from the row reached to the one it was reached from."""
    neighborhood = draw_history(payments, 5, 8)
    data = to_hetero_data(neighborhood, payments.schema)
    assert sum(store.num_nodes for store in data.node_stores) == len(neighborhood.hop)
    assert sum(store.num_edges for store in data.edge_stores) == len(neighborhood.edge_source)
    assert data["transactions"].numerical.shape == (data["transactions"].num_nodes, 1)
    assert data["transactions"].numerical_names == ("amount",)
    edges = data["transactions", OF_CUSTOMER, "customers"].edge_index
    assert (data["transactions"].hop[edges[0]] == 2).all()
    assert (data["customers"].hop[edges[1]] == 1).all()
    assert torch.equal(data["transactions"].batch[edges[0]], data["customers"].batch[edges[1]])
    assert data.validate()


def test_seeds_are_found(payments: Any, draw_history: Callable[..., Any]) -> None:
    """`seed` points to the row of hop 0 of each neighborhood, in their order."""
    neighborhood = draw_history(payments, 5, 8)
    data = to_hetero_data(neighborhood, payments.schema)
    seed = data["transactions"].seed
    assert data["transactions"].hop[seed].tolist() == [0] * 5
    assert data["transactions"].batch[seed].tolist() == list(range(5))
    assert data.cutoff_time_us.tolist() == neighborhood.cutoff_time_us.tolist()


def test_cells_of_every_kind_are_carried(orders: Any) -> None:
    """Codes, booleans, timestamps and vectors come as sampled, nulls included."""
    seed = orders.seed("orders", 10**12, {"picture": [1.0, 2.0, 3.0]})
    orders.row(seed, "orders.customer_id->customers.customer_id", {"country": "de", "born": 7})
    data = to_hetero_data(orders.build(), orders.schema)
    assert data["customers"].coded.tolist() == [[1, 0]]
    assert data["customers"].timestamp.tolist() == [[7]]
    assert data["orders"].boolean.tolist() == [[2, 2]]
    assert data["orders"].embedding.tolist() == [[1.0, 2.0, 3.0]]


def test_strings_of_negative_codes_come_along(orders: Any) -> None:
    """A seed's string that the graph has never stored is found under its code."""
    orders.seed("orders", 10**12, {"note": "new"})
    drawn = orders.build()
    drawn.columns["orders"].coded[0, 0] = -1
    data = to_hetero_data(replace(drawn, unseen=("new",)), orders.schema)
    assert data.unseen[-1 - int(data["orders"].coded[0, 0])] == "new"


def test_a_pyg_model_learns_on_it(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A heterogeneous GraphSAGE of torch_geometric learns how many known frauds a terminal has."""
    from torch_geometric.nn import HeteroConv, SAGEConv

    neighborhood = draw_history(payments, 200, 12, seed=1)
    data = to_hetero_data(neighborhood, payments.schema)
    known = torch.nan_to_num(data["transactions"].boolean[:, :1].float(), nan=2.0)
    features = {
        "transactions": torch.cat([known == state for state in (0.0, 1.0, 2.0)], dim=1).float(),
        "customers": torch.ones(data["customers"].num_nodes, 1),
        "terminals": torch.ones(data["terminals"].num_nodes, 1),
    }
    table = neighborhood.columns["transactions"]
    sample = np.repeat(np.arange(200), np.diff(neighborhood.seed_offset))[table.node]
    frauds = np.bincount(sample[table.boolean[:, 1 - 1] == 1], minlength=200)
    target = torch.from_numpy((frauds > np.median(frauds)).astype(np.float32))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(
                HeteroConv({kind: SAGEConv((-1, -1), 16, aggr="sum") for kind in data.edge_types}, aggr="sum")
                for _ in range(2)
            )
            self.head = nn.LazyLinear(1)

        def forward(self) -> torch.Tensor:
            x = dict(features)
            for convolution in self.convolutions:
                x = {name: value.relu() for name, value in (x | convolution(x, data.edge_index_dict)).items()}
            return self.head(x["transactions"][data["transactions"].seed]).squeeze(1)

    torch.manual_seed(0)
    model = Model()
    model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(model(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_without_pyg_the_error_says_what_to_install(payments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named when it is missing; the rest of the package does not need it."""
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    payments.seed("transactions", 1000)
    with pytest.raises(ImportError, match=r"nowgraph\[pyg\]"):
        to_hetero_data(payments.build(), payments.schema)

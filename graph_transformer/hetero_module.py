"""A model of PyTorch Geometric in the place of our own: what it needs of a batch, in PyG's own form.

    Batch ─► row vectors ─► HeteroData (x per table, edge_index per link and back) ─► the model ─► [B, outputs]

torch_geometric is an optional dependency (extra `pyg`), imported when a batch is turned.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.layout import Layout, LinkLayout
from graph_transformer.rows import RowEncoder

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

Metadata = tuple[list[str], list[tuple[str, str, str]]]


class HeteroModule(nn.Module):
    """Derive from it, build the model in `__init__` (`metadata` is known by then), and give its outputs in `answer`.

    Name the class in a task as `model: {module: "package.module:Class"}`; it is trained, saved and served as ours is.
    """

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.layout, self.config, self.outputs = layout, config, outputs
        self.rows = RowEncoder(layout, config.width, config.cells, fold=False)
        self.tables = [table.table for table in layout.tables]
        self.seed_table = self.tables[layout.paths[0].table]

    @property
    def metadata(self) -> Metadata:
        """The node types and edge types that `to_hetero` and `HGTConv` ask for; every batch has all of them."""
        edges = [self._edge_types(link) for link in self.layout.links]
        return self.tables, [edge_type for both in edges for edge_type in both]

    @abstractmethod
    def answer(self, data: HeteroData) -> Tensor:
        """Return the outputs float[B, outputs]: those of rows `data[seed_table].seed` int64[B] of the seeds' table."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the outputs float[B, outputs] of a batch."""
        return self.answer(self.hetero_data(batch))

    def hetero_data(self, batch: Batch) -> HeteroData:
        """Return the batch with row vectors `x` float32[n, width] per table and `edge_index` int64[2, e] per edge type.

        A link's edge type is (child, its columns, parent), and with `rev_` before the columns from parent to child.
        Tables and links without rows are there and empty; rows of a table that training never saw are left out.
        """
        from torch_geometric.data import HeteroData

        vectors = self.rows(batch)
        data = HeteroData()
        place = torch.zeros_like(batch.table)
        for position, table in enumerate(self.tables):
            nodes = torch.nonzero(batch.table == position).squeeze(1)
            place[nodes] = torch.arange(len(nodes), device=nodes.device)
            data[table].x = vectors.index_select(0, nodes)
            data[table].num_nodes = len(nodes)
        data[self.seed_table].seed = place.index_select(0, batch.seed_rows())
        sampled = {link.link: link for link in batch.links}
        for position, link in enumerate(self.layout.links):
            forward, backward = self._edge_types(link)
            edges = place.new_empty((2, 0))
            if (found := sampled.get(position)) is not None:
                edges = torch.stack([place.index_select(0, found.child), place.index_select(0, found.parent)])
            data[forward].edge_index, data[backward].edge_index = edges, edges.flip(0)
        return data

    def _edge_types(self, link: LinkLayout) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
        child, parent = self.tables[link.child], self.tables[link.parent]
        # PyG makes attribute names of these, so that only letters, digits and underscores may stay.
        columns = re.sub(r"\W", "_", link.name.split("->")[0].removeprefix(f"{child}."))
        return (child, columns, parent), (parent, f"rev_{columns}", child)

"""A model of PyTorch Geometric in the place of nowgraph's: GraphSAGE, made heterogeneous by `to_hetero`.

    # task.yaml
    model: {width: 32, layers: 2, module: "pyg_model:Sage"}

With this folder on PYTHONPATH, in training and in the server, and with the extra `pyg`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GraphSAGE, to_hetero

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.layout import Layout
from graph_transformer.hetero_module import HeteroModule


class Sage(HeteroModule):
    """`layers` rounds of messages along every link and back; the seed's vector is read."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__(layout, config, outputs)
        sage = GraphSAGE(config.width, config.width, num_layers=config.layers, dropout=config.dropout)
        self.sage = to_hetero(sage, self.metadata)
        self.head = nn.Linear(config.width, outputs)

    def answer(self, data: HeteroData) -> Tensor:
        """Return the outputs float32[B, outputs]."""
        vectors = self.sage(data.x_dict, data.edge_index_dict)[self.seed_table]
        output: Tensor = self.head(vectors[data[self.seed_table].seed])
        return output

"""A model of one's own in the place of nowgraph's: the mean of a neighborhood's rows beside the seed's own.

    # task.yaml
    model: {width: 32, module: "custom_module:MeanOfRows"}

With this folder on PYTHONPATH, in training and in the server: PYTHONPATH=examples/payments nowgraph train ...
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.layout import Layout
from graph_transformer.rows import RowEncoder


class MeanOfRows(nn.Module):
    """Anything with this constructor and this `forward` can be trained, saved and served."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.rows = RowEncoder(layout, config.width)  # cells, clock, links: as nowgraph encodes them
        self.head = nn.Sequential(
            nn.Linear(2 * config.width, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, outputs),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the outputs float32[B, outputs] of B neighborhoods."""
        rows = self.rows(batch)  # float32[N, width]
        seeds = batch.seed_rows()
        owner = torch.searchsorted(seeds, torch.arange(batch.nodes, device=seeds.device), right=True) - 1
        total = torch.zeros(batch.size, rows.shape[1], device=rows.device).index_add_(0, owner, rows)
        mean = total / torch.bincount(owner, minlength=batch.size).unsqueeze(1)
        output: Tensor = self.head(torch.cat([rows.index_select(0, seeds), mean], dim=1))
        return output

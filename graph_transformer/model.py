"""The graph transformer: row vectors, attention from the seed over its sampled neighborhood, a head.

    Batch ─► row vectors [N, d] ─► grid [B, K, d] ─► (rows attend) ─► seed attends, layer by layer ─► [B, outputs]

By default rows do not attend to each other: on the payments task that cost 2.4 times as much and won nothing.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_transformer.attention import MASKED, Centroids, RowAttention, SeedAttention
from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.layout import Layout
from graph_transformer.ensemble import Ensemble
from graph_transformer.importing import load_object
from graph_transformer.rows import RowEncoder


def build_model(layout: Layout, config: ModelConfig, outputs: int) -> nn.Module:
    """Return a new model: float[B, outputs] of a `Batch`.

    Raises:
        TaskError: `config.module` names no class that can be imported.
    """
    kind = GraphTransformer if config.module is None else load_object("model.module", config.module)
    if config.members == 1:
        return cast("nn.Module", kind(layout, config, outputs))
    return Ensemble(config.members, lambda: cast("nn.Module", kind(layout, config, outputs)))


class GraphTransformer(nn.Module):
    """Outputs of neighborhoods; also of a seed alone, which is the row's own columns and nothing else."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.rows = RowEncoder(layout, config.width, config.cells)
        self.seed = nn.Linear(layout.seed_width, config.width, bias=False)
        self.counts = nn.Linear(layout.counts_width, config.width, bias=False) if config.counts else None
        self.mutual = nn.ModuleList(RowAttention(config) for _ in range(config.mutual))
        self.blocks = nn.ModuleList(SeedAttention(layout, config) for _ in range(config.layers))
        self.centroids = Centroids(config) if config.centroids else None
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, outputs),
        )
        if config.compile:
            for part in (*self.mutual, *self.blocks):
                part.compile(dynamic=True)

    @torch.no_grad()
    def start_at(self, prior: Tensor) -> None:
        """Set the last bias to `prior` float[outputs], so that no steps are spent on finding it."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(prior)

    def forward(self, batch: Batch, contents: Tensor | None = None) -> Tensor:
        """Return the outputs float32[B, outputs]; `contents` are `RowEncoder.contents` where they are already there."""
        rows = self.dropout(self.rows(batch, contents))
        grid = _to_grid(rows, batch)
        hidden = self._hidden(batch)
        for mutual in self.mutual:
            grid = mutual(grid, hidden)
        # The affine part of a norm before a linear layer is that layer's own: rows are only centered and scaled.
        normalized = functional.layer_norm(grid, (grid.shape[2],))
        seed = grid[:, 0] + self.seed(batch.seed)
        if self.counts is not None:
            seed = seed + self.counts(batch.counts)
        for block in self.blocks:
            assert isinstance(block, SeedAttention)
            bias = _to_grid(block.rows(batch), batch).transpose(1, 2)
            if hidden is not None:
                bias = bias.masked_fill(hidden, MASKED)
            seed = block(seed, normalized, bias)
        if self.centroids is not None:
            seed = self.centroids(seed)
        output: Tensor = self.head(seed)
        return output

    def _hidden(self, batch: Batch) -> Tensor | None:
        """Return bool[B, 1, K], true where no row is or, in training, where one is dropped; the seed always stays."""
        mask = batch.mask()
        hidden = None if mask is None else ~mask
        if self.training and self.config.token_dropout > 0:
            device = batch.path.device
            share = torch.rand(batch.size, 1, device=device) * self.config.token_dropout
            dropped = torch.rand(batch.size, batch.width, device=device) < share
            dropped[:, 0] = False
            hidden = dropped if hidden is None else hidden | dropped
        return None if hidden is None else hidden.unsqueeze(1)


def _to_grid(rows: Tensor, batch: Batch) -> Tensor:
    """Return float[B, K, ...] of float[N, ...]; zeros where no row is."""
    if batch.token is None:
        return rows.view(batch.size, batch.width, -1)
    if batch.padded:
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return rows.index_select(0, batch.token.view(-1)).view(batch.size, batch.width, -1)

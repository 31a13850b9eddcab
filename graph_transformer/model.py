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
        # Last, so that a model's other parts begin with the same weights with and without them.
        self.tallies = _beside(layout.tallies_width, config) if layout.tallies_width else None
        self.comparisons = _beside(layout.comparisons_width, config) if layout.comparisons_width else None
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
        hidden = self._hidden(batch)
        asked = [self.seed(batch.seed)]
        if self.counts is not None:
            asked.append(self.counts(batch.counts))
        if self.tallies is not None:
            asked.append(self.tallies(batch.tallies))
        if self.comparisons is not None:
            asked.append(self.comparisons(batch.comparisons))
        of_rows = [rows, *(block.rows(batch) for block in self.blocks)]  # type: ignore[operator]  # all are SeedAttention
        parts = parts_of(batch)
        if parts is None:
            grid, *biases = (_to_grid(each, batch) for each in of_rows)
            seed = self._attend(asked, grid, biases, hidden)
        else:
            seed = self._by_parts(asked, batch, parts, of_rows, hidden)
        if self.centroids is not None:
            seed = self.centroids(seed)
        output: Tensor = self.head(seed)
        return output

    def _attend(self, asked: list[Tensor], grid: Tensor, biases: list[Tensor], hidden: Tensor | None) -> Tensor:
        """Return seeds float32[b, width] after all layers, of a grid float32[b, K, width].

        `asked` are added to the seeds, float32[b, width] each; `biases` are float32[b, K, heads] of each layer.
        """
        for mutual in self.mutual:
            grid = mutual(grid, hidden)
        # The affine part of a norm before a linear layer is that layer's own: rows are only centered and scaled.
        normalized = functional.layer_norm(grid, (grid.shape[2],))
        seed = grid[:, 0]
        for each in asked:
            seed = seed + each
        for block, of_rows in zip(self.blocks, biases, strict=True):
            bias = of_rows.transpose(1, 2)
            if hidden is not None:
                bias = bias.masked_fill(hidden, MASKED)
            seed = block(seed, normalized, bias)
        return seed

    def _by_parts(
        self, asked: list[Tensor], batch: Batch, parts: Parts, of_rows: list[Tensor], hidden: Tensor | None
    ) -> Tensor:
        """Return what `_attend` does, in parts of seeds of like size: what is padded is not computed."""
        assert batch.token is not None
        tokens = [batch.token.index_select(0, chosen)[:, :width] for chosen, width in parts]
        # One gather for all parts: its backward pass writes as many rows as there are, not as many per part.
        flat = torch.cat([token.reshape(-1) for token in tokens])
        sizes = [token.numel() for token in tokens]
        gathered = [
            functional.pad(each, (0, 0, 0, 1)).index_select(0, flat).split_with_sizes(sizes) for each in of_rows
        ]
        seen = []
        for number, (chosen, width) in enumerate(parts):
            grid, *biases = (each[number].view(len(chosen), width, -1) for each in gathered)
            shown = None if hidden is None else hidden.index_select(0, chosen)[:, :, :width]
            seen.append(self._attend([each.index_select(0, chosen) for each in asked], grid, biases, shown))
        back = torch.argsort(torch.cat([chosen for chosen, _ in parts]))
        return torch.cat(seen).index_select(0, back)

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


def _beside(inputs: int, config: ModelConfig) -> nn.Sequential:
    """Return what makes of a seed's own numbers, tallies or comparisons, something to add to it: nothing at first."""
    last = nn.Linear(config.width, config.width, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(inputs, config.width), nn.GELU(), nn.Dropout(config.dropout), last)


PART = 64
"""Seeds that are padded together where there are many: to the longest of their own, not of all."""
Parts = list[tuple[Tensor, int]]


def _to_grid(rows: Tensor, batch: Batch) -> Tensor:
    """Return float[B, K, ...] of float[N, ...]; zeros where no row is."""
    if batch.token is None:
        return rows.view(batch.size, batch.width, -1)
    if batch.padded:
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return rows.index_select(0, batch.token.view(-1)).view(batch.size, batch.width, -1)


def parts_of(batch: Batch) -> Parts | None:
    """Return parts of a large padded batch, seeds int64[b] of like size and their width; None: all at once."""
    if batch.token is None or not batch.padded or batch.size < 2 * PART:
        return None
    sizes = (batch.token < batch.nodes).sum(dim=1)
    order = torch.argsort(sizes)
    chunks = (order[start : start + PART] for start in range(0, len(order), PART))
    return [(chosen, int(sizes[chosen[-1]])) for chosen in chunks]

"""The graph transformer: row vectors, attention from the seed over its sampled neighborhood, a head.

    cells, clock, link path, outcome state ─► row vectors [N, d] ─► grid [B, K, d] ─► seed attends ─► [B, outputs]

Rows do not attend to each other: on the payments task full self-attention cost 2.4 times as much and won nothing, and
with one query per neighborhood the key and value projections fold into the seed's side (a step takes .067 s, not .117).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import STATES, Layout
from graph_transformer.ensemble import Ensemble

AGE_SLOPE_DAYS = 10.0
AGE_MAX = 20.0
"""Ages beyond 20 slope units (200 days) weigh the same: a softmax has long forgotten them."""
NOT_MEMBER = -4.0
"""Where a head starts for rows it is not about: e^-4, so that it can still learn to look at them."""
_MASKED = -1e9


class RowEncoder(nn.Module):
    """One vector per row: linear over its cells, clock, path and state, GELU, linear.

    A linear layer over a concatenation is the sum of linear layers, so that each part stays in its own (smaller) array.
    """

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self.clock = nn.Linear(layout.clock_width, width)
        self.path = nn.Embedding(layout.paths, width)
        self.also = nn.Embedding(layout.paths, width)
        self.hop = nn.Embedding(max(layout.path_hop) + 1, width)
        self.table = nn.Embedding(max(layout.path_table) + 1, width)
        self.state = nn.Embedding(STATES, width)
        self.dense = nn.ModuleDict()
        self.category = nn.ModuleDict()
        for table in layout.tables:
            if table.dense_width:
                self.dense[table.table] = nn.Linear(table.dense_width, width, bias=False)
            if table.category_sizes:
                self.category[table.table] = nn.ModuleList(nn.Embedding(size, width) for size in table.category_sizes)
        self.output = nn.Linear(width, width)
        self.register_buffer("path_hop", torch.tensor(layout.path_hop), persistent=False)
        self.register_buffer("path_table", torch.tensor(layout.path_table), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, batch: Batch) -> Tensor:
        """Return float32[N, width]."""
        path = self.path.weight + self.hop(self.path_hop) + self.table(self.path_table)
        # The second path counts only where it differs from the first.
        also = self.also.weight.index_select(0, batch.also) * (batch.also != batch.path).unsqueeze(1)
        hidden = self.clock(batch.clock) + path.index_select(0, batch.path) + also + self.state(batch.state)
        for table in batch.tables:
            if table.table in self.dense:
                hidden = hidden.index_add(0, table.node, self.dense[table.table](table.dense))
            if table.table in self.category:
                embeddings = self.category[table.table]
                assert isinstance(embeddings, nn.ModuleList)
                for column, embedding in enumerate(embeddings):
                    hidden = hidden.index_add(0, table.node, embedding(table.category[:, column]))
        output: Tensor = self.output(functional.gelu(hidden))
        return output


class SeedAttention(nn.Module):
    """Pre-norm attention of one seed over K rows, then a feed-forward layer; both added to the seed.

    Each head has a learned bias per (link path, outcome state) and a learned slope per ten days of age. Keys and values
    are never formed: query and output projections take their part.
    """

    def __init__(self, config: ModelConfig, starts: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        size = width // heads
        self.heads = heads
        self.scale = size**-0.5
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Parameter(torch.empty(heads, size, width))
        self.value = nn.Parameter(torch.empty(heads, width, size))
        self.output = nn.Linear(width, width)
        self.bias = nn.Parameter(starts[0].clone())
        self.slope = nn.Parameter(starts[1].clone())
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)
        for parameter in (self.key, self.value):
            nn.init.uniform_(parameter, -1.0 / math.sqrt(width), 1.0 / math.sqrt(width))

    def row_bias(self, batch: Batch) -> Tensor:
        """Return float32[N, heads]: what a head thinks of a row unseen; of two paths the better counts."""
        first = self.bias.index_select(0, batch.path * STATES + batch.state)
        second = self.bias.index_select(0, batch.also * STATES + batch.state)
        age = (batch.age_days * (1.0 / AGE_SLOPE_DAYS)).clamp(max=AGE_MAX)
        return torch.maximum(first, second) - age.unsqueeze(1) * self.slope

    def forward(self, seed: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        """Return the seed float32[B, width] after attending to normalized rows float32[B, K, width].

        `bias` float32[B, heads, K] is added to what heads think of rows.
        """
        size = len(seed)
        query = self.query(self.norm(seed)).view(size, self.heads, 1, -1)
        folded = torch.matmul(query, self.key).squeeze(2) * self.scale
        weight = torch.softmax(torch.baddbmm(bias, folded, rows.transpose(1, 2)), dim=2)
        seen = torch.bmm(weight, rows).unsqueeze(2)
        seed = seed + self.dropout(self.output(torch.matmul(seen, self.value).view(size, -1)))
        result: Tensor = seed + self.dropout(self.feed(seed))
        return result


def build_model(layout: Layout, config: ModelConfig, outputs: int) -> nn.Module:
    """Return a new model: float[B, outputs] of a `Batch`."""
    if config.members == 1:
        return GraphTransformer(layout, config, outputs)
    return Ensemble(config.members, lambda: GraphTransformer(layout, config, outputs))


class GraphTransformer(nn.Module):
    """Outputs of neighborhoods; also of a seed alone, which is the row's own columns and nothing else."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.rows = RowEncoder(layout, config.width)
        starts = head_starts(layout, config.heads)
        self.blocks = nn.ModuleList(SeedAttention(config, starts) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, outputs),
        )

    @torch.no_grad()
    def start_at(self, prior: Tensor) -> None:
        """Set the last bias to `prior` float[outputs], so that no steps are spent on finding it."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(prior)

    def forward(self, batch: Batch) -> Tensor:
        """Return the outputs float32[B, outputs]."""
        rows = self.dropout(self.rows(batch))
        grid = _to_grid(rows, batch)
        seed = grid[:, 0]
        normalized = functional.layer_norm(grid, (grid.shape[2],))
        hidden = self._hidden(batch)
        for block in self.blocks:
            assert isinstance(block, SeedAttention)
            bias = _to_grid(block.row_bias(batch), batch).transpose(1, 2)
            if hidden is not None:
                bias = bias.masked_fill(hidden, _MASKED)
            seed = block(seed, normalized, bias)
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
    padded = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return padded.index_select(0, batch.token.view(-1)).view(batch.size, batch.width, -1)


def head_starts(layout: Layout, heads: int) -> tuple[Tensor, Tensor]:
    """Return where the heads start: bias float32[paths * STATES, heads] and age slope float32[heads].

    Heads start with a subject each instead of all alike: everything; the rows of each path that has outcomes, most
    frequent first, then only those known true, again with recency, those known at all. On a week of payments this was
    worth .04 to .05 of average precision; with months of them nothing.
    """
    bias = torch.zeros(layout.paths, STATES, heads)
    slope = torch.zeros(heads)
    subjects = ((None, 0.0), ((2,), 0.0), (None, 1.0), ((1, 2), 0.0), (None, 3.0), ((2,), 1.0))
    planned = [(path, states, start) for states, start in subjects for path in layout.outcome_paths]
    for head, (path, states, start) in enumerate(planned[: heads - 1], start=1):
        member = torch.full((layout.paths, STATES), NOT_MEMBER)
        member[path, list(states or range(STATES))] = 0.0
        bias[:, :, head] = member
        slope[head] = start
    return bias.view(layout.paths * STATES, heads), slope

"""The model of a ranking: two towers over one graph transformer's rows, and a fusion that is fitted on top of them.

    user's neighborhood ─► row contents (+ item identities) ─► graph transformer ──┐
                                        └─► items of the history, newest heaviest ─┴─► user vector ─┐
    item's own row ─► row contents (+ identity) ─► item vector ──────────────────────────────────── dot ─► score

Both towers read an item alike: what is learned of an item in a history is learned of the item that is scored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.layout import Layout
from graph_transformer.errors import TaskError
from graph_transformer.model import GraphTransformer
from graph_transformer.ranking.config import RankingConfig

if TYPE_CHECKING:
    from graph_transformer.encoding.encoding import Encoding
    from graph_transformer.target import Ranked
    from graph_transformer.task import Task
    from temporal_graph.schema import Table

RECENCY_STARTS = (8.0, 2.0, 1.0, 0.25)
"""Where the heads of a history start: the last item alone, and ever more of those before it ((1 + place) ** -slope)."""


@dataclass(frozen=True, slots=True)
class HistoryLayout:
    """Where a batch holds the history: the path of the user's interactions, and the position of their link to items."""

    path: int
    link: int


class HistoryMeans(nn.Module):
    """Means of the history's item vectors, each head with its own slope over recency, and what they say of the next."""

    def __init__(self, history: HistoryLayout, dimension: int, dropout: float) -> None:
        super().__init__()
        self.history = history
        heads = len(RECENCY_STARTS)
        self.slope = nn.Parameter(torch.log(torch.expm1(torch.tensor(RECENCY_STARTS))))
        self.output = nn.Linear(heads * dimension, dimension, bias=False)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.output.weight.copy_(torch.eye(dimension).repeat(1, heads) / heads)

    def forward(self, batch: Batch, vector: Tensor, node: Tensor) -> Tensor:
        """Return float32[B, dimension] of item vectors float32[I, dimension] at rows `node` int64[I], rising."""
        heads = len(self.slope)
        link = next((found for found in batch.links if found.link == self.history.link), None)
        mean = vector.new_zeros(batch.size, heads, vector.shape[1])
        total = vector.new_full((batch.size, heads), 1e-6)
        if link is not None and len(node):
            chosen = torch.nonzero(batch.path.index_select(0, link.child) == self.history.path).squeeze(1)
            child, parent = link.child.index_select(0, chosen), link.parent.index_select(0, chosen)
            of_user = batch.samples().index_select(0, child)
            slope = functional.softplus(self.slope)
            weight = torch.exp(-batch.rank.index_select(0, child).unsqueeze(1) * slope)
            seen = vector.index_select(0, torch.searchsorted(node, parent))
            mean = mean.index_add(0, of_user, weight.unsqueeze(2) * seen.unsqueeze(1))
            total = total.index_add(0, of_user, weight)
        result: Tensor = self.output(self.dropout((mean / total.unsqueeze(2)).flatten(1)))
        return result


class Tower(nn.Module):
    """One member: vectors of users and of items whose dot product says how likely the item is the user's next."""

    def __init__(self, layout: Layout, config: ModelConfig, ranking: RankingConfig, history: HistoryLayout) -> None:
        super().__init__()
        self.graph = GraphTransformer(layout, config, ranking.dimension)
        assert self.graph.rows.identity is not None
        self.graph.rows.identity.dropout = ranking.identity_dropout
        self.vector = nn.Linear(config.width, ranking.dimension, bias=False)
        nn.init.eye_(self.vector.weight)
        self.means = HistoryMeans(history, ranking.dimension, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def users(self, batch: Batch) -> Tensor:
        """Return float32[B, dimension] of users' neighborhoods."""
        contents = self.graph.rows.contents(batch)
        node = batch.identity_node
        assert node is not None
        meant: Tensor = self.means(batch, self.vector(contents.index_select(0, node)), node)
        found: Tensor = meant + self.graph(batch, contents)
        return found

    def items(self, batch: Batch) -> Tensor:
        """Return float32[n, dimension] of items, each the seed of its own neighborhood."""
        contents = self.graph.rows.contents(batch)
        result: Tensor = self.vector(self.dropout(contents.index_select(0, batch.seed_rows())))
        return result


class RankingModel(nn.Module):
    """Towers, one or several that answer together, and the fusion (a part of its own, None until it is fitted)."""

    def __init__(
        self,
        layout: Layout,
        config: ModelConfig,
        ranking: RankingConfig,
        history: HistoryLayout,
        fusion: nn.Module | None = None,
    ) -> None:
        """`layout` says how many identities there are.

        Raises:
            TaskError: the model is one of the user's own; towers are ours.
        """
        if config.module is not None:
            raise TaskError("model.module", "nothing: a ranking's towers are our own", config.module)
        super().__init__()
        self.towers = nn.ModuleList(Tower(layout, config, ranking, history) for _ in range(config.members))
        self.fusion = fusion
        self.dimension = ranking.dimension * config.members
        """Numbers of a vector: those of all members side by side, so that dot products add up."""

    def users(self, batch: Batch) -> Tensor:
        """Return float32[B, dimension] of the neighborhoods of users (or sessions), sampled by the task's plan."""
        return self._joined([tower.users(batch) for tower in self._all()])

    def items(self, batch: Batch) -> Tensor:
        """Return float32[n, dimension] of the neighborhoods of items, sampled by `item_plan`."""
        return self._joined([tower.items(batch) for tower in self._all()])

    def forward(self, users: Batch, items: Batch) -> tuple[Tensor, Tensor]:
        """Return what training fits: vectors float32[members, B, d] and float32[members, n, d], not joined."""
        towers = self._all()
        return torch.stack([t.users(users) for t in towers]), torch.stack([t.items(items) for t in towers])

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        """Set every member's identities to `vectors` float32[identities, d]; numbers beyond the width are left out."""
        for tower in self._all():
            identity = tower.graph.rows.identity
            assert identity is not None
            width = min(identity.entries.embedding_dim, vectors.shape[1])
            start = identity.entries.weight.clone()
            start[:, :width] = vectors[:, :width]
            identity.start_at(start)

    def _all(self) -> list[Tower]:
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Return the members' vectors side by side; a dot product of two is the mean of the members' own."""
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) * len(parts) ** -0.5


def history_layout(encoding: Encoding, interactions: Table, ranked: Ranked) -> HistoryLayout:
    """Return where batches of an encoding hold the history; a path or link that training never met is nowhere (-1)."""
    user, item = interactions.link(ranked.user_link), interactions.link(ranked.item_link)
    paths = [path.links for path in encoding.paths.paths]
    links = [link.name for link in encoding.layout().links]
    return HistoryLayout(
        paths.index((user.backward,)) if (user.backward,) in paths else -1,
        links.index(item.forward) if item.forward in links else -1,
    )


def build_ranking(encoding: Encoding, task: Task, identities: int, fusion: nn.Module | None = None) -> RankingModel:
    """Return a new model of a ranking with so many identities, that of unknown items counted.

    Raises:
        TaskError: the task is no ranking, or its model is the user's own.
    """
    ranked = task.target.ranked
    if ranked is None:
        raise TaskError("kind", "ranking", task.target.kind.value)
    history = history_layout(encoding, encoding.schema.table(ranked.interactions), ranked)
    layout = replace(encoding.layout(), identities=identities)
    return RankingModel(layout, task.model, task.ranking, history, fusion)

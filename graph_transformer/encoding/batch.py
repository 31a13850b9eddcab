"""What a model reads: one array per kind of information over all rows, and the grid that puts rows beside seeds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TableBatch:
    """The encoded cells of the n sampled rows of one table.

    node int64[n] (index of the row in the batch, rising), dense float32[n, F], category int64[n, C] (per categorical
    column).
    """

    table: str
    node: Tensor
    dense: Tensor
    category: Tensor


@dataclass(frozen=True, slots=True)
class LinkBatch:
    """The e sampled edges of one foreign key, each once, whichever way it was followed.

    link: position in `Layout.links`. child, parent int64[e]: indices of rows in the batch, child rising.
    """

    link: int
    child: Tensor
    parent: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """N rows of B neighborhoods, seed-major, each seed first among its rows.

    table int64[N] (position in `Layout.tables`, one more than the last for a table training never saw); path, also,
    state int64[N]; clock float32[N, T]; age_days, rank float32[N] (rank: log1p of how many rows of the same parent and
    link are newer); degree_node, degree_link int64[D] and degree float32[D]: log1p of the sampled children of a row
    over a link (of those that have some); seed float32[B, S] (calendar of the cut-off, how old the graph was); counts
    float32[B, C]: log1p of the rows per path, outcome state and step of age.

    `also` is `path` itself where no row has a second path. tallies float32[B, W]: those of `tallies`, None where the
    model has none; and comparisons likewise.

    identity_node, identity_code int64[I]: the rows that have an identity of their own (the items of a ranking), rising,
    and which; 0 is the one of all that training did not know. None where the model has none.

    token int64[B, K]: the rows that the seed attends to, N where it has fewer than K; None where row b * K + k is
    simply (b, k). A row that is only a parent of another row is no token: it is folded into that row.
    """

    size: int
    width: int
    padded: bool
    table: Tensor
    path: Tensor
    also: Tensor
    state: Tensor
    clock: Tensor
    age_days: Tensor
    rank: Tensor
    degree_node: Tensor
    degree_link: Tensor
    degree: Tensor
    seed: Tensor
    counts: Tensor
    token: Tensor | None
    tables: tuple[TableBatch, ...]
    links: tuple[LinkBatch, ...]
    identity_node: Tensor | None = None
    identity_code: Tensor | None = None
    tallies: Tensor | None = None
    comparisons: Tensor | None = None

    @property
    def nodes(self) -> int:
        """N, the rows of all neighborhoods."""
        return int(self.path.shape[0])

    def mask(self) -> Tensor | None:
        """Return bool[B, K], true where a row is, or None where every place holds one."""
        return self.token < self.nodes if self.padded and self.token is not None else None

    def seed_rows(self) -> Tensor:
        """Return int64[B]: the index of each seed's row."""
        if self.token is not None:
            return self.token[:, 0].contiguous()
        return torch.arange(0, self.size * self.width, self.width, device=self.path.device)

    def samples(self) -> Tensor:
        """Return int64[N]: the neighborhood of each row; 0 of rows that are no token."""
        if self.token is None:
            return torch.arange(self.size, device=self.path.device).repeat_interleave(self.width)
        sample = torch.zeros(self.nodes + 1, dtype=torch.int64, device=self.path.device)
        places = torch.arange(self.size, device=self.path.device).repeat_interleave(self.width)
        return sample.scatter_(0, self.token.view(-1), places)[:-1]

    def alone(self, seed_offset: NDArray[np.int64], seed: int) -> Batch:
        """Return the batch of one seed, copied into memory that PyTorch has aligned; `seed_offset` is int64[B + 1].

        What an operation does with the same numbers in the same shape and alignment is the same to the last bit.
        """
        start, end = int(seed_offset[seed]), int(seed_offset[seed + 1])
        bounds = torch.tensor([start, end])
        tables = []
        for table in self.tables:
            rows = _between(table.node, bounds)
            if rows.stop > rows.start:
                cells = table.dense[rows].clone(), table.category[rows].clone()
                tables.append(TableBatch(table.table, table.node[rows] - start, *cells))
        links = []
        for link in self.links:
            edges = _between(link.child, bounds)
            if edges.stop > edges.start:
                links.append(LinkBatch(link.link, link.child[edges] - start, link.parent[edges] - start))
        rows, degrees = slice(start, end), _between(self.degree_node, bounds)
        token, width = None, end - start
        if self.token is not None:
            places = self.token[seed]
            token = (places[places < end] - start).unsqueeze(0)
            width = token.shape[1]
            token = None if width == end - start else token
        identity_node, identity_code = self.identity_node, self.identity_code
        if identity_node is not None and identity_code is not None:
            known = _between(identity_node, bounds)
            identity_node, identity_code = identity_node[known] - start, identity_code[known].clone()
        own = {name: getattr(self, name)[rows].clone() for name in _PER_ROW}
        return Batch(
            size=1,
            width=width,
            padded=False,
            **own,
            also=own["path"] if self.also is self.path else self.also[rows].clone(),
            degree_node=self.degree_node[degrees] - start,
            degree_link=self.degree_link[degrees].clone(),
            degree=self.degree[degrees].clone(),
            seed=self.seed[seed : seed + 1].clone(),
            counts=self.counts[seed : seed + 1].clone(),
            token=token,
            tables=tuple(tables),
            links=tuple(links),
            identity_node=identity_node,
            identity_code=identity_code,
            tallies=None if self.tallies is None else self.tallies[seed : seed + 1].clone(),
            comparisons=None if self.comparisons is None else self.comparisons[seed : seed + 1].clone(),
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device; itself where it is there already."""
        if self.path.device == torch.device(device):
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        tables = tuple(TableBatch(t.table, move(t.node), move(t.dense), move(t.category)) for t in self.tables)
        links = tuple(LinkBatch(link.link, move(link.child), move(link.parent)) for link in self.links)
        moved: dict[str, Any] = {
            field.name: move(value) for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)
        }
        if self.also is self.path:
            moved["also"] = moved["path"]
        return replace(self, tables=tables, links=links, **moved)


_PER_ROW = ("table", "path", "state", "clock", "age_days", "rank")


def _between(rising: Tensor, bounds: Tensor) -> slice:
    """Return where the values from bounds[0] to before bounds[1] lie in a rising tensor."""
    first, last = torch.searchsorted(rising, bounds).tolist()
    return slice(first, last)

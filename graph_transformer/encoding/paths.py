"""Link paths: by which links a row was reached from its seed.

A path is the sequence of edge types from the seed's table; the paths a model knows are those its training
neighborhoods held, everything else is the last path, OTHER. Index 0 is the seed itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from temporal_graph.schema import Schema

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood

PATHS_MAX = 64
"""Paths kept, the most frequent first: more than a schema of a dozen tables gives at two hops."""


@dataclass(frozen=True, slots=True)
class LinkPath:
    """Edge types from the seed to a row, the row's table, and the share of training tokens reached by it."""

    links: tuple[str, ...]
    table: str
    share: float

    @property
    def hop(self) -> int:
        """The number of links from the seed."""
        return len(self.links)


class PathTable:
    """Gives every node of a neighborhood its path, with one array lookup per hop.

    `paths[0]` is the seed; the index `len(paths)` stands for any path not seen in training.
    """

    def __init__(self, paths: Sequence[LinkPath], schema: Schema) -> None:
        self.paths = tuple(paths)
        self.other = len(self.paths)
        index = {path.links: position for position, path in enumerate(self.paths)}
        # One more column than edge types, so that link -1 (a seed) reads the last one.
        self._step = np.full((self.other + 1, len(schema.edge_types) + 1), self.other, dtype=np.int64)
        for links, position in index.items():
            for edge, name in enumerate(schema.edge_types):
                self._step[position, edge] = index.get((*links, name), self.other)

    def of_nodes(self, neighborhood: Neighborhood) -> NDArray[np.int64]:
        """Return int64[N]: the path by which each node was first reached."""
        path = np.zeros(len(neighborhood.hop), dtype=np.int64)
        hop, parent, link = neighborhood.hop, neighborhood.parent, neighborhood.link
        for depth in range(1, int(hop.max(initial=0)) + 1):
            nodes = np.flatnonzero(hop == depth)
            path[nodes] = self._step[path[parent[nodes]], link[nodes]]
        return path

    def of_edges(self, neighborhood: Neighborhood, path: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64[N]: a second path to the same node, where an edge found one; else the node's own path.

        Where no edge did, that is `path` itself.

        A payment reached from its customer that the terminal's edge also reaches shares *both* with the seed: this is
        how the model knows, whatever the tables mean.
        """
        source, target = neighborhood.edge_source, neighborhood.edge_target
        # Not the edge that first reached the row; a table may link twice to one parent, so another link of it counts.
        first = (neighborhood.parent[target] == source) & (neighborhood.link[target] == neighborhood.edge_link)
        extra = np.flatnonzero(~first)
        if not len(extra):
            return path
        also = path.copy()
        # Where several remain the last one wins: edges come in a fixed order.
        also[target[extra]] = self._step[path[source[extra]], neighborhood.edge_link[extra]]
        also[neighborhood.hop == 0] = 0
        return also


def nearest(paths: Sequence[LinkPath], positions: Iterable[int], most: int) -> list[int]:
    """Return at most so many of the positions: the paths nearest to the seed first, and then the most frequent."""
    return sorted(positions, key=lambda at: (paths[at].hop, -paths[at].share))[:most]


def fit_paths(neighborhoods: Sequence[Neighborhood], schema: Schema, seed_table: str) -> tuple[LinkPath, ...]:
    """Return the paths of training neighborhoods: the seed's first, then by hop and name, at most PATHS_MAX."""
    counts: dict[tuple[str, ...], int] = {}
    tables: dict[tuple[str, ...], str] = {}
    for neighborhood in neighborhoods:
        frontier: dict[tuple[str, ...], NDArray[np.intp]] = {(): np.flatnonzero(neighborhood.hop == 0)}
        depth = 0
        while frontier:
            depth += 1
            owner = np.full(len(neighborhood.hop), -1, dtype=np.int64)
            known = list(frontier.items())
            for position, (_, nodes) in enumerate(known):
                owner[nodes] = position
            frontier = {}
            reached = np.flatnonzero(neighborhood.hop == depth)
            step = owner[neighborhood.parent[reached]] * len(schema.edge_types) + neighborhood.link[reached]
            for value in np.unique(step):
                position, edge = divmod(int(value), len(schema.edge_types))
                links = (*known[position][0], schema.edge_types[edge])
                nodes = reached[step == value]
                frontier[links] = nodes
                counts[links] = counts.get(links, 0) + len(nodes)
                tables[links] = schema.tables[int(neighborhood.table[nodes[0]])].name
    total = max(1, sum(counts.values()))
    kept = sorted(counts, key=lambda links: (-counts[links], links))[: PATHS_MAX - 1]
    ordered = sorted(kept, key=lambda links: (len(links), links))
    return (LinkPath((), seed_table, 0.0), *(LinkPath(k, tables[k], round(counts[k] / total, 4)) for k in ordered))

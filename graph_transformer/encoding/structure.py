"""The shape of a neighborhood as a model reads it: who points to whom, how many, how recent among their kind.

    edges, parents, times ─► links (child, parent) ─┐
                          ─► degrees                ├─► Batch
                          ─► ranks                  │
                          ─► counts per path and age┘

Attention is a mean: it forgets how many rows it saw. Counts and degrees are what it forgets.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.layout import AGE_STEPS

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class LinkEdges(NamedTuple):
    """Edges of one link: position of the link, rows int64[e] that point, rows int64[e] they point to."""

    link: int
    child: Ints
    parent: Ints


class EdgeTypes(NamedTuple):
    """Per edge type of a schema: its link int64[T], -1 if no model knows it; whether it leads to the parent, bool[T].

    `known` is how many links the model knows.
    """

    link: Ints
    forward: NDArray[np.bool_]
    known: int


def edges_by_link(neighborhood: Neighborhood, types: EdgeTypes) -> list[LinkEdges]:
    """Return the sampled edges per link, each once whichever way it was followed, by rising child.

    Edges come from rows to their children and back; a model asks only who points to whom.
    """
    edge = neighborhood.edge_link
    if not len(edge):
        return []
    link, forward = types.link[edge], types.forward[edge]
    source, target = neighborhood.edge_source, neighborhood.edge_target
    rows = len(neighborhood.hop)
    # A row points to one parent over a link: written where link and child say, each edge is there once and in order.
    # Edge types no model knows have link -1: they go to the last part, which is not read.
    known = types.known
    parent_of = np.full((known + 1, rows), -1, dtype=np.int64)
    parent_of[link, np.where(forward, source, target)] = np.where(forward, target, source)
    told = parent_of[:known].reshape(-1)
    place = np.flatnonzero(told >= 0)
    parent = told[place]
    bounds = np.searchsorted(place, np.arange(known + 1) * rows).tolist()
    return [
        LinkEdges(position, place[start:end] - position * rows, parent[start:end])
        for position, (start, end) in enumerate(pairwise(bounds))
        if end > start
    ]


def degrees(edges: list[LinkEdges]) -> tuple[Ints, Ints, Floats]:
    """Return (node int64[D] rising, link int64[D], log1p of children float32[D]) of the rows that have children."""
    if not edges:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    nodes, links, children = [], [], []
    for found in edges:
        count = np.bincount(found.parent)
        node = np.flatnonzero(count)
        nodes.append(node)
        links.append(np.full(len(node), found.link))
        children.append(np.log1p(count[node]).astype(np.float32))
    node = np.concatenate(nodes)
    order = np.argsort(node, kind="stable")
    return node[order], np.concatenate(links)[order], np.concatenate(children)[order]


def ranks(parent: NDArray[np.int32], link: NDArray[np.int16], event_time_us: Ints) -> Floats:
    """Return float32[N]: log1p of how many rows of the same parent and link are newer; rows of equal time are equal.

    Sorting is left out where rows already stand by parent, link and falling time, as the sampler gives the newest.
    """
    rows = len(parent)
    group = parent.astype(np.int64) * 65_536 + link
    inner = parent[1:] >= 0  # a seed is in no group
    same = (group[1:] == group[:-1]) & inner
    is_newest_first = bool((event_time_us[1:] <= event_time_us[:-1])[same].all())
    if is_newest_first and bool((group[1:] >= group[:-1])[inner].all()):
        return _ranks(same, event_time_us)
    # ~t falls as t rises, and unlike -t has a value for the smallest t.
    order = np.lexsort((~event_time_us, group))
    group, time = group[order], event_time_us[order]
    same = (group[1:] == group[:-1]) & (group[1:] >= 0)
    out = np.empty(rows, dtype=np.float32)
    out[order] = _ranks(same, time)
    return out


def _ranks(same: NDArray[np.bool_], time: Ints) -> Floats:
    """Return the ranks of rows that stand by group and falling time; `same`: of the group of the row before."""
    place = np.arange(len(time))
    start = np.maximum.accumulate(np.where(np.concatenate([[False], same]), 0, place))
    tied = np.concatenate([[False], same & (time[1:] == time[:-1])])
    first = np.maximum.accumulate(np.where(tied, 0, place))
    logs: NDArray[np.float64] = np.log1p(first - start)
    return logs.astype(np.float32)


def counts(sample: Ints, slot: Ints, log_age: Floats, ends: tuple[float, float], shape: tuple[int, int]) -> Floats:
    """Return float32[B, slots * AGE_STEPS]: log1p of how many rows of a seed lie in a slot and a step of log age.

    `sample`, `slot` int64[N] (the last slot is not counted) and `log_age` float32[N] per row; `ends` the ends of the
    steps; `shape` is (B, slots + 1).
    """
    low, high = ends
    step = ((log_age - low) * (AGE_STEPS / (high - low))).astype(np.int64)
    np.clip(step, 0, AGE_STEPS - 1, out=step)
    size, slots = shape
    found = np.bincount((sample * slots + slot) * AGE_STEPS + step, minlength=size * slots * AGE_STEPS)
    counted = found.reshape(size, slots * AGE_STEPS)[:, : (slots - 1) * AGE_STEPS]
    logs: NDArray[np.float64] = np.log1p(counted)
    return logs.astype(np.float32)

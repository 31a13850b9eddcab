"""One collate for training and serving: a neighborhood's columns become the batch a model reads.

Neighborhood ─► link paths ─┐
             ─► clock      ─┤
             ─► structure  ─┼─► Batch        no loop over rows: hops, tables, links and columns only
             ─► cells      ─┤
             ─► tallies    ─┤
             ─► comparisons─┘
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.encoding.batch import Batch, LinkBatch, TableBatch
from graph_transformer.encoding.clock import CALENDAR_WIDTH, clock, log_age
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.layout import STATES, Layout, TableLayout
from graph_transformer.encoding.outcomes import states
from graph_transformer.encoding.structure import counts, degrees, edges_of, ranks
from graph_transformer.encoding.tallies import Read

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood

__all__ = ["STATES", "WIDTH_STEP", "Encoding", "Layout", "TableLayout", "collate"]

WIDTH_STEP = 32
"""Several neighborhoods are padded to a multiple of this, so that few shapes occur."""
LOG_AGE_AT = 2
"""Where `clock` puts the log age."""


def collate(
    neighborhood: Neighborhood,
    encoding: Encoding,
    *,
    width: int | None = None,
    width_step: int = WIDTH_STEP,
    asked_time_us: NDArray[np.int64] | None = None,
) -> Batch:
    """Return the batch of B neighborhoods of N rows; seeds must be rows of the encoding's seed table.

    `asked_time_us` int64[B] is the time ages are counted from, where the graph was read only up to an earlier cut-off.

    `width` fixes K, the places per neighborhood. Otherwise K is what the largest needs: exactly for one neighborhood or
    equal ones, else up to the next multiple of `width_step`.

    Raises:
        ValueError: `width` is less than the tokens of a neighborhood.
    """
    offset = neighborhood.seed_offset
    sizes = np.diff(offset)
    sample = np.repeat(np.arange(len(sizes)), sizes)
    asked = neighborhood.cutoff_time_us if asked_time_us is None else asked_time_us
    cutoff = asked[sample]
    features, days, dates = clock(neighborhood.event_time_us, cutoff, encoding.age_bins, asked)
    path = encoding.paths.of_nodes(neighborhood)
    also = encoding.paths.of_edges(neighborhood, path)
    state = states(neighborhood, encoding.outcomes)
    read = Read(sample, path, also, state, cutoff)
    tables = _cells(neighborhood, encoding, cutoff, sample)
    edges = edges_of(neighborhood, encoding.edge_types)
    degree_node, degree_link, degree = degrees(edges)
    slot = encoding.slots[path * STATES + state]
    ends, shape = encoding.age_ends, (len(sizes), encoding.slots_count)
    places, token, padded = _grid(encoding.is_token[path], sample, offset, (width, width_step))
    return Batch(
        size=len(sizes),
        width=places,
        padded=padded,
        table=_tensor(encoding.table_at[neighborhood.table]),
        path=(path_of_rows := _tensor(path)),
        also=path_of_rows if also is path else _tensor(also),
        state=_tensor(state),
        clock=_tensor(features),
        age_days=_tensor(days),
        rank=_tensor(ranks(neighborhood.parent, neighborhood.link, neighborhood.event_time_us)),
        degree_node=_tensor(degree_node),
        degree_link=_tensor(degree_link),
        degree=_tensor(degree),
        seed=_tensor(_seed(dates, asked, neighborhood.cutoff_time_us)),
        counts=_tensor(counts(sample, slot, features[:, LOG_AGE_AT], ends, shape)),
        token=None if token is None else _tensor(token),
        tables=tables,
        links=tuple(
            LinkBatch(link, _tensor(edges.child[start:end]), _tensor(edges.parent[start:end]))
            for link, (start, end) in enumerate(pairwise(edges.bounds))
            if end > start
        ),
        tallies=None if (tallied := encoding.tallies) is None else _tensor(tallied.of(neighborhood, read)),
        comparisons=None if (compared := encoding.comparisons) is None else _tensor(compared.of(neighborhood, read)),
    )


def _cells(
    neighborhood: Neighborhood, encoding: Encoding, cutoff: NDArray[np.int64], sample: NDArray[np.int64]
) -> tuple[TableBatch, ...]:
    """Return the encoded cells per table, of rows seen at their cut-offs and of the samples int64[N] both."""
    seeds = neighborhood.seed_offset[:-1]
    tables = []
    for name, encoder in encoding.encoders.items():
        columns = neighborhood.columns.get(name)
        if columns is None or not len(columns.node):
            continue
        node = columns.node
        at_seed = name == encoding.statistics.seed_table
        # Nodes of a table come in rising order, so a seed's place among them is found by search.
        seed = np.searchsorted(node, seeds)[sample[node]] if at_seed else None
        if encoder.dense_width or encoder.category_sizes:
            dense, category = encoder.encode(columns, cutoff[node], seed, neighborhood.unseen)
            tables.append(TableBatch(name, _tensor(node.astype(np.int64)), _tensor(dense), _tensor(category)))
    return tuple(tables)


def _seed(
    dates: NDArray[np.float32], asked_time_us: NDArray[np.int64], read_until_us: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return float32[B, seed_width]: the calendar of the time asked about, and how much older the graph was."""
    out = np.empty((len(dates), CALENDAR_WIDTH + 1), dtype=np.float32)
    out[:, :CALENDAR_WIDTH] = dates
    out[:, CALENDAR_WIDTH] = log_age(asked_time_us - read_until_us)
    return out


def _grid(
    is_token: NDArray[np.bool_],
    sample: NDArray[np.int64],
    offset: NDArray[np.int64],
    widths: tuple[int | None, int],
) -> tuple[int, NDArray[np.int64] | None, bool]:
    """Return (K, token int64[B, K] or None where the rows already are a full grid, whether places are empty)."""
    width, step = widths
    is_all = bool(is_token.all())
    rows = np.arange(len(is_token)) if is_all else np.flatnonzero(is_token)
    start = offset if is_all else np.searchsorted(rows, offset)
    sizes = np.diff(start)
    longest = int(sizes.max())
    if width is not None and longest > width:
        raise ValueError(f"a neighborhood of {longest} tokens does not fit the fixed width {width}")
    if width in (None, longest) and int(sizes.min()) == longest:
        return longest, None if is_all else rows.reshape(-1, longest), False
    places = width if width is not None else -(-longest // step) * step
    token = np.full((len(sizes), places), len(is_token), dtype=np.int64)
    token[sample[rows], np.arange(len(rows)) - start[sample[rows]]] = rows
    return places, token, True


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(array)

"""A neighborhood as a torch_geometric `HeteroData`, so that any PyG model can be trained on the same samples.

torch_geometric is an optional dependency (extra `pyg`), imported on the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from temporal_graph.schema import Schema

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from online_sampler.neighborhood import Neighborhood


def to_hetero_data(neighborhood: Neighborhood, schema: Schema) -> HeteroData:
    """Return the B neighborhoods as one HeteroData; rows stay apart per seed, as they were sampled.

    Per table with rows (n of them): `row` int64[n] (graph index, -1 virtual), `batch` int64[n] (which seed), `hop`,
    `event_time_us`, `known_time_us` and `version` int64[n]; cells as sampled: `numerical` float64 (NaN null), `coded`
    int64 (0 null, -1 - k the string `unseen[k]`), `boolean` int64 (2 null), `timestamp` int64 (-2**63 null),
    `embedding` float32 (NaN null), with their column names in `numerical_names` and so on. The seeds' table has `seed`
    int64[B], the seeds' places in it.

    Per edge type with edges, `(source, link, target).edge_index` int64[2, e]: for a message to reach the seed, from the
    row reached to the row it was reached from. `link` is the schema's edge type, read against its arrow. Global:
    `cutoff_time_us` int64[B], and `unseen`, strings of event seeds that the graph has never stored.

    Raises:
        ImportError: torch_geometric is not installed.
    """
    try:
        from torch_geometric.data import HeteroData
    except ImportError as error:
        raise ImportError("to_hetero_data needs torch_geometric: pip install 'nowgraph[pyg]'") from error
    data = HeteroData()
    counts = np.diff(neighborhood.seed_offset)
    sample = np.repeat(np.arange(len(counts)), counts)
    place = np.zeros(len(sample), dtype=np.int64)
    data.cutoff_time_us = torch.from_numpy(neighborhood.cutoff_time_us.astype(np.int64))
    data.unseen = neighborhood.unseen
    for index, table in enumerate(schema.tables):
        nodes = np.flatnonzero(neighborhood.table == index)
        if not len(nodes):
            continue
        place[nodes] = np.arange(len(nodes))
        store = data[table.name]
        store.num_nodes = len(nodes)
        store.batch = torch.from_numpy(sample[nodes])
        for name in ("row", "hop", "event_time_us", "known_time_us", "version"):
            store[name] = torch.from_numpy(getattr(neighborhood, name)[nodes].astype(np.int64))
        _cells(store, neighborhood, table.name)
    if len(counts):
        seeds = neighborhood.seed_offset[:-1]
        seed_table = schema.tables[int(neighborhood.table[seeds[0]])].name
        data[seed_table].seed = torch.from_numpy(place[seeds])
    for edge_type in np.unique(neighborhood.edge_link):
        chosen = neighborhood.edge_link == edge_type
        expanded, reached = neighborhood.edge_source[chosen], neighborhood.edge_target[chosen]
        source = schema.tables[int(neighborhood.table[reached[0]])].name
        target = schema.tables[int(neighborhood.table[expanded[0]])].name
        edges = torch.from_numpy(np.stack([place[reached], place[expanded]]))
        data[source, schema.edge_types[int(edge_type)], target].edge_index = edges
    return data


def _cells(store: object, neighborhood: Neighborhood, table: str) -> None:
    """Copy a table's cells, by kind, into its node store."""
    columns = neighborhood.columns.get(table)
    if columns is None:
        return
    for kind, dtype in (
        ("numerical", np.float64),
        ("coded", np.int64),
        ("boolean", np.int64),
        ("timestamp", np.int64),
        ("embedding", np.float32),
    ):
        values = getattr(columns, kind)
        if values.shape[1]:
            setattr(store, kind, torch.from_numpy(values.astype(dtype)))
            setattr(store, f"{kind}_names", tuple(getattr(columns, f"{kind}_names")))

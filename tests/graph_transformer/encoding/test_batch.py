from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.target import Kind, Target


def encoded(payments: Any, neighborhood: Any) -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target)
    return Encoding(statistics, payments.schema, payments.strings)


def test_a_seed_alone_is_what_it_would_be_by_itself(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Cutting a seed out of a batch gives, bit for bit, what the rows of that seed hold in the batch."""
    neighborhood = draw_history(payments, 6, 9)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    rows = 0
    for seed in range(6):
        alone = batch.alone(neighborhood.seed_offset, seed)
        start, end = neighborhood.seed_offset[seed : seed + 2].tolist()
        assert (alone.size, alone.width, alone.token) == (1, end - start, None)
        assert torch.equal(alone.clock, batch.clock[start:end])
        assert torch.equal(alone.path, batch.path[start:end])
        rows += sum(len(table.node) for table in alone.tables)
        assert all(int(table.node.max()) < alone.width for table in alone.tables)
    assert rows == sum(len(table.node) for table in batch.tables)


def test_mask_is_true_where_a_row_is(payments: Any, draw_history: Callable[..., Any]) -> None:
    """As many places are true as there are rows, from the left; a full grid has no mask."""
    neighborhood = draw_history(payments, 4, 9)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    mask = batch.mask()
    assert mask is not None
    assert mask.sum(dim=1).tolist() == (neighborhood.seed_offset[1:] - neighborhood.seed_offset[:-1]).tolist()
    assert bool((mask[:, :-1] >= mask[:, 1:]).all())
    assert batch.alone(neighborhood.seed_offset, 0).mask() is None


def test_moving_a_batch_keeps_it(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A batch on another device (here the same) holds the same numbers."""
    neighborhood = draw_history(payments, 3, 5)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    moved = batch.to("cpu")
    assert torch.equal(moved.state, batch.state)
    assert torch.equal(moved.tables[0].dense, batch.tables[0].dense)
    assert (moved.size, moved.width, moved.nodes) == (batch.size, batch.width, batch.nodes)


def test_identities_stay_with_their_rows(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A seed cut out of a batch keeps the identities of its own rows, counted from its first row."""
    neighborhood = draw_history(payments, 4, 5)
    terminal = payments.schema.table_index("terminals")
    node = torch.tensor([at for at, table in enumerate(neighborhood.table) if table == terminal])
    batch = replace(collate(neighborhood, encoded(payments, neighborhood)), identity_node=node, identity_code=node * 7)
    found = []
    for seed in range(4):
        alone = batch.alone(neighborhood.seed_offset, seed)
        assert alone.identity_node is not None
        assert alone.identity_code is not None
        found += (alone.identity_node + int(neighborhood.seed_offset[seed])).tolist()
        assert alone.identity_code.tolist() == [7 * at for at in found[-len(alone.identity_node) :]]
    assert found == node.tolist()


def test_rows_know_their_neighborhood(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Of every token the number of the seed it was sampled for, whether or not places are empty."""
    for rows in (0, 9):
        neighborhood = draw_history(payments, 4, rows)
        batch = collate(neighborhood, encoded(payments, neighborhood))
        sizes = torch.from_numpy(neighborhood.seed_offset[1:] - neighborhood.seed_offset[:-1])
        assert batch.samples().tolist() == torch.arange(4).repeat_interleave(sizes).tolist()
